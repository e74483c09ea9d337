"""Miniature trees of the corpora, in the layouts in which they are distributed: a few short clips each."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 16_000


def clip(path: Path, seconds: float = 0.1) -> Path:
    """Write a short clip whose content only this path has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(str(path).encode()))
    wave = 0.1 * rng.standard_normal(round(seconds * RATE_HZ))
    if path.suffix == ".opus":
        soundfile.write(path, wave, RATE_HZ, format="OGG", subtype="OPUS")
    else:
        soundfile.write(path, wave, RATE_HZ)
    return path


def _clips(root: Path, *names: str) -> None:
    for name in names:
        clip(root / name)


def _text(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


def iemocap(root: Path) -> None:
    for session, dialogue, turns in (
        ("Session1", "Ses01F_impro01", ("F000 neu 2.5000", "F001 xxx 2.5000", "M000 exc 5.0000")),
        ("Session2", "Ses02M_script03_2", ("F000 fru 1.0000", "M042 ang 5.5000")),
    ):
        labels = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        said = ""
        for place, turn in enumerate(turns):
            name, emotion, valence = turn.split()
            labels += f"[{place}.2901 - {place}.9357]\t{dialogue}_{name}\t{emotion}\t[{valence}, 3.0000, 2.0000]\n"
            labels += "C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
            said += f"{dialogue}_{name} [00{place}.2901-00{place}.9357]: What did {name} say?\n"
            clip(root / session / "sentences" / "wav" / dialogue / f"{dialogue}_{name}.wav")
        dialog = root / session / "dialog"
        _text(dialog / "EmoEvaluation" / f"{dialogue}.txt", labels)
        _text(dialog / "EmoEvaluation" / "Categorical" / f"{dialogue}_e1_cat.txt", "no label file\n")
        _text(dialog / "EmoEvaluation" / f"._{dialogue}.txt", "left by macOS")
        _text(dialog / "transcriptions" / f"{dialogue}.txt", said + "M: [LAUGHTER]\n")


def emodb(root: Path) -> None:
    _clips(root, *(f"wav/{name}.wav" for name in ("03a01Fa", "03a01Nc", "08b10Wb", "16a07Lb", "14b02Ta")))


def emovo(root: Path) -> None:
    _clips(root, "f1/dis-f1-b1.wav", "f1/gio-f1-n5.wav", "m3/rab-m3-l4.wav")
    _text(root / "documents" / "readme.txt", "EMOVO")


def urdu(root: Path) -> None:
    _clips(root, "Angry/SM1_F1_A01.wav", "Happy/SF2_F10_H013.wav", "Neutral/SM5_F2_N02.wav", "Sad/SM24_F1_S0100.wav")


def ravdess(root: Path) -> None:
    _clips(root, "Actor_01/03-01-05-01-01-01-01.wav", "Actor_01/03-01-02-01-02-02-01.wav")
    _clips(root, "Actor_02/03-01-08-02-01-01-02.wav", "Actor_02/03-02-03-01-01-01-02.wav")  # the last one is sung


def tess(root: Path) -> None:
    _clips(root, "OAF_angry/OAF_back_angry.wav", "OAF_Pleasant_surprise/OAF_base_ps.wav")
    _clips(root, "OAF_neutral/OA_bite_neutral.wav", "YAF_sad/YAF_witch_sad.wav")


def savee(root: Path) -> None:
    _clips(root, *(f"AudioData/{name}.wav" for name in ("DC/a01", "DC/sa15", "JE/su02", "KL/n30")))
    clip(root / "AudioData" / "other" / "a01.wav")


def mesd(root: Path) -> None:
    _clips(root, "Anger_C_A_abajo.wav", "Happiness_F_B_por_favor.wav", "Neutral_M_A_adios.wav")


def esd(root: Path) -> None:
    _clips(root, "0001/Angry/train/0001_000351.wav", "0001/Surprise/test/0001_001401.wav")
    _clips(root, "0003/Happy/0003_000701.wav", "0016/Sad/evaluation/0016_001051.wav")
    _text(root / "0001" / "0001.txt", "0001_000351\t打远一看\t生气\n0001_001401\t他来了\t惊喜\n", "gb2312")
    _text(root / "0003" / "0003.txt", "0003_000701\t打远一看\t快乐\n", "utf-16")
    _text(root / "0016" / "0016.txt", "0016_001051\tA café so fresh.\tSad\n", "cp1252")


def cremad(root: Path) -> None:
    names = ("1001_DFA_ANG_XX", "1001_IEO_HAP_HI", "1002_TIE_NEU_XX", "1040_ITH_SAD_X")
    _clips(root, *(f"AudioWAV/{name}.wav" for name in names))
    _clips(root, "AudioMP3/1001_DFA_ANG_XX.mp3")
    _text(root / "VideoDemographics.csv", "ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,Caucasian,Not Hispanic\n")


def cafe(root: Path) -> None:
    _clips(root, "Colère/Fort/01-C-2-1.wav", "Joie/Faible/02-J-1-6.wav", "Neutre/11-N-1-3.wav")


def bhavvani(root: Path) -> None:
    _clips(root, "Data/train_1.wav", "Data/train_2.wav", "Data/val_1.wav", "Data/test_1.wav")
    rows = "train_1.mp4,Enjoyment,M,Ramesh\ntrain_2.mp4,Contempt,F,\nval_1.mp4,Anger,F,Sita\ntest_1.mp4,Neutral,M,\n"
    _text(root / "final_annotation.csv", "File,Emotion,gender,Speaker\n" + rows)


_PODCAST_HEAD = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"


def msp_podcast(root: Path) -> None:
    rows = (
        "MSP-PODCAST_0001_0008.wav,N,1.0,4.0,7.0,30,Male,Test1\n"
        "MSP-PODCAST_0002_0001.wav,A,5.5,2.5,5.0,Unknown,Unknown,Train\n"
        "MSP-PODCAST_0003_0001.wav,X,4.0,4.0,4.0,7,Female,Development\n"
    )
    _text(root / "Labels" / "labels_consensus.csv", _PODCAST_HEAD + rows)
    for row in rows.splitlines():
        name = row.split(",")[0]
        clip(root / "Audios" / name)
        _text(root / "Transcripts" / name.replace(".wav", ".txt"), f"words of {name}\n")


def biic_podcast(root: Path) -> None:
    rows = "BIIC_0001_0001.wav,Happiness,4.0,6.0,4.0,1,Female,Train\nBIIC_0002_0001.wav,U,3.0,3.0,3.0,2,Male,Test\n"
    _text(root / "Labels" / "labels_consensus.csv", _PODCAST_HEAD + rows)
    _clips(root, "Audios/BIIC_0001_0001.wav", "Audios/BIIC_0002_0001.wav")


TREES: dict[str, Callable[[Path], None]] = {
    "iemocap": iemocap,
    "emodb": emodb,
    "emovo": emovo,
    "urdu": urdu,
    "ravdess": ravdess,
    "tess": tess,
    "savee": savee,
    "mesd": mesd,
    "esd": esd,
    "cremad": cremad,
    "cafe": cafe,
    "bhavvani": bhavvani,
    "msp-podcast": msp_podcast,
    "biic-podcast": biic_podcast,
}
"""Name of a corpus -> what writes its miniature into a folder."""
