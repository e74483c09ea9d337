from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from edge_ser.corpus import FOUR_CLASSES, read_manifest
from edge_ser.errors import ConfigError
from tests.train.miniature_corpora import TREES, clip
from train.corpora import READERS
from train.corpora.class_maps import class_index, class_map, class_names, map_names
from train.corpora.tables import corpus_table
from train.corpora.utterance import COLUMNS, Utterance, read_utterances, write_manifest

# By file name without suffix: speaker, gender, label, class of the map `four`, transcript.
EXPECTED: dict[str, dict[str, tuple[str, str, str, str, str]]] = {
    "iemocap": {
        "Ses01F_impro01_F000": ("Ses01F", "f", "neutral", "neutral", "What did F000 say?"),
        "Ses01F_impro01_F001": ("Ses01F", "f", "undecided", "", "What did F001 say?"),
        "Ses01F_impro01_M000": ("Ses01M", "m", "excited", "happy", "What did M000 say?"),
        "Ses02M_script03_2_F000": ("Ses02F", "f", "frustrated", "", "What did F000 say?"),
        "Ses02M_script03_2_M042": ("Ses02M", "m", "angry", "angry", "What did M042 say?"),
    },
    "emodb": {
        "03a01Fa": ("03", "m", "happiness", "happy", "Der Lappen liegt auf dem Eisschrank."),
        "03a01Nc": ("03", "m", "neutral", "neutral", "Der Lappen liegt auf dem Eisschrank."),
        "08b10Wb": ("08", "f", "anger", "angry", "Die wird auf dem Platz sein, wo wir sie immer hinlegen."),
        "14b02Ta": (
            "14",
            "f",
            "sadness",
            "sad",
            "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
        ),
        "16a07Lb": ("16", "f", "boredom", "", "In sieben Stunden wird es soweit sein."),
    },
    "emovo": {
        "dis-f1-b1": ("f1", "f", "disgust", "", "Gli operai si alzano presto."),
        "gio-f1-n5": ("f1", "f", "joy", "happy", "Uno quarantatré dieci mille cinquantasette venti."),
        "rab-m3-l4": ("m3", "m", "anger", "angry", "Vorrei il numero telefonico del Signor Piatti."),
    },
    "urdu": {
        "SF2_F10_H013": ("SF2", "f", "happy", "happy", ""),
        "SM1_F1_A01": ("SM1", "m", "angry", "angry", ""),
        "SM24_F1_S0100": ("SM24", "m", "sad", "sad", ""),
        "SM5_F2_N02": ("SM5", "m", "neutral", "neutral", ""),
    },
    "ravdess": {
        "03-01-02-01-02-02-01": ("01", "m", "calm", "", "Dogs are sitting by the door."),
        "03-01-05-01-01-01-01": ("01", "m", "angry", "angry", "Kids are talking by the door."),
        "03-01-08-02-01-01-02": ("02", "f", "surprised", "", "Kids are talking by the door."),
    },
    "tess": {
        "OAF_back_angry": ("OAF", "f", "angry", "angry", "Say the word back."),
        "OAF_base_ps": ("OAF", "f", "surprise", "", "Say the word base."),
        "OA_bite_neutral": ("OAF", "f", "neutral", "neutral", "Say the word bite."),
        "YAF_witch_sad": ("YAF", "f", "sad", "sad", "Say the word witch."),
    },
    "savee": {
        "a01": ("DC", "m", "anger", "angry", ""),
        "sa15": ("DC", "m", "sadness", "sad", ""),
        "su02": ("JE", "m", "surprise", "", ""),
        "n30": ("KL", "m", "neutral", "neutral", ""),
    },
    "mesd": {
        "Anger_C_A_abajo": ("C", "", "anger", "angry", "abajo"),
        "Happiness_F_B_por_favor": ("F", "f", "happiness", "happy", "por favor"),
        "Neutral_M_A_adios": ("M", "m", "neutral", "neutral", "adios"),
    },
    "esd": {
        "0001_000351": ("0001", "f", "angry", "angry", "打远一看"),
        "0001_001401": ("0001", "f", "surprise", "", "他来了"),
        "0003_000701": ("0003", "f", "happy", "happy", "打远一看"),
        "0016_001051": ("0016", "f", "sad", "sad", "A café so fresh."),
    },
    "cremad": {
        "1001_DFA_ANG_XX": ("1001", "m", "angry", "angry", "Don't forget a jacket."),
        "1001_IEO_HAP_HI": ("1001", "m", "happy", "happy", "It's eleven o'clock."),
        "1002_TIE_NEU_XX": ("1002", "f", "neutral", "neutral", "That is exactly what happened."),
        "1040_ITH_SAD_X": ("1040", "m", "sad", "sad", "I think I have a doctor's appointment."),
    },
    "cafe": {
        "01-C-2-1": ("01", "m", "anger", "angry", "Un cheval fou dans mon jardin"),
        "02-J-1-6": ("02", "f", "happiness", "happy", "Six ours aimants domestiqués"),
        "11-N-1-3": ("11", "m", "neutral", "neutral", "Trois cygnes aveugles au bord du lac"),
    },
    "bhavvani": {
        "train_1": ("Ramesh", "m", "enjoyment", "happy", ""),
        "train_2": ("unknown-train", "f", "disgust", "", ""),
        "val_1": ("Sita", "f", "anger", "angry", ""),
        "test_1": ("unknown-test", "m", "neutral", "neutral", ""),
    },
    "msp-podcast": {
        "MSP-PODCAST_0001_0008": ("30", "m", "neutral", "neutral", "words of MSP-PODCAST_0001_0008.wav"),
        "MSP-PODCAST_0002_0001": (
            "unknown-MSP-PODCAST_0002",
            "",
            "angry",
            "angry",
            "words of MSP-PODCAST_0002_0001.wav",
        ),
        "MSP-PODCAST_0003_0001": ("7", "f", "undecided", "", "words of MSP-PODCAST_0003_0001.wav"),
    },
    "biic-podcast": {
        "BIIC_0001_0001": ("1", "f", "happy", "happy", ""),
        "BIIC_0002_0001": ("2", "m", "surprise", "", ""),
    },
}
NAMES = sorted(READERS)


def read(corpus: str, folder: Path) -> list[Utterance]:
    TREES[corpus](folder)
    return list(READERS[corpus](folder))


def test_every_corpus_has_a_reader_a_table_and_a_miniature() -> None:
    assert set(READERS) == set(TREES) == set(EXPECTED)
    assert {corpus_table(name).name for name in READERS} == set(READERS)


@pytest.mark.parametrize("corpus", NAMES)
def test_a_reader_tells_speaker_gender_label_and_words(corpus: str, tmp_path: Path) -> None:
    found = read(corpus, tmp_path)
    rows = {
        u.path.stem: (u.speaker.removeprefix(f"{u.corpus}_"), u.gender, u.emotion, u.emotion4, u.transcript)
        for u in found
    }
    assert rows == EXPECTED[corpus]
    assert len(found) == len(rows)
    for utterance in found:
        assert utterance.path.is_file()
        assert utterance.speaker.startswith(f"{utterance.corpus}_")
        assert utterance.language and utterance.licence


@pytest.mark.parametrize("corpus", NAMES)
def test_a_wrong_folder_is_one_line_that_says_what_was_looked_for(corpus: str, tmp_path: Path) -> None:
    clip(tmp_path / "something" / "else.wav")
    for folder, start in ((tmp_path, f"{tmp_path} does not hold"), (tmp_path / "nowhere", "no folder")):
        with pytest.raises(ConfigError) as raised:
            list(READERS[corpus](folder))
        message = str(raised.value)
        assert message.startswith(start) and "\n" not in message
        assert corpus_table(corpus).title in message
        if folder.exists():
            assert corpus_table(corpus).layout[0] in message


@pytest.mark.parametrize("suffix", [".flac", ".opus", ".mp3", ".WAV"])
def test_recoded_audio_is_found(suffix: str, tmp_path: Path) -> None:
    clip(tmp_path / "emodb" / f"03a01Fa{suffix}")
    assert len(list(READERS["emodb"](tmp_path / "emodb"))) == 1
    TREES["iemocap"](tmp_path / "iemocap")
    wav = next((tmp_path / "iemocap").glob("*/sentences/wav/*/*.wav"))
    clip(wav.with_suffix(suffix.lower()))
    if suffix != ".WAV":
        wav.unlink()
    assert all(u.path.is_file() for u in READERS["iemocap"](tmp_path / "iemocap"))


def test_attributes_are_mapped_linearly_to_one(tmp_path: Path) -> None:
    podcast = {u.path.stem: u for u in read("msp-podcast", tmp_path / "msp")}
    assert podcast["MSP-PODCAST_0001_0008"].attributes == (0.0, 0.5, 1.0)  # arousal, valence, dominance on 1 to 7
    assert podcast["MSP-PODCAST_0002_0001"].attributes == pytest.approx((0.75, 0.25, 4 / 6))
    turns = {u.path.stem: u for u in read("iemocap", tmp_path / "iemocap")}
    assert turns["Ses01F_impro01_F000"].attributes == (0.5, 0.375, 0.25)  # the label file begins with valence
    assert turns["Ses02M_script03_2_M042"].valence == 1.0  # 5.5 on a scale to 5


def test_partitions_and_sessions_are_the_official_ones(tmp_path: Path) -> None:
    podcast = read("msp-podcast", tmp_path / "msp")
    assert [u.partition for u in podcast] == ["test1", "train", "dev"]
    assert [u.session for u in podcast] == ["MSP-PODCAST_0001", "MSP-PODCAST_0002", "MSP-PODCAST_0003"]
    assert [u.partition for u in read("biic-podcast", tmp_path / "biic")] == ["train", "test"]
    assert [u.partition for u in read("bhavvani", tmp_path / "bhavvani")] == ["train", "train", "dev", "test"]
    assert {u.session for u in read("iemocap", tmp_path / "iemocap")} == {"Ses01", "Ses02"}
    assert [u.partition for u in read("esd", tmp_path / "esd")] == ["train", "test", "", "dev"]


def test_esd_is_two_corpora_by_language(tmp_path: Path) -> None:
    assert Counter((u.corpus, u.language) for u in read("esd", tmp_path)) == {("esd", "zh"): 3, ("esd-en", "en"): 1}


def test_savee_in_one_folder_is_read_too(tmp_path: Path) -> None:
    clip(tmp_path / "DC_sa01.wav")
    assert [(u.speaker, u.emotion) for u in READERS["savee"](tmp_path)] == [("savee_DC", "sadness")]


def test_podcast_labels_without_a_column_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "labels_consensus.csv").write_text("FileName,EmoClass\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="EmoAct, EmoVal, EmoDom, Split_Set; need"):
        list(READERS["msp-podcast"](tmp_path))
    (tmp_path / "final_annotation.csv").write_text("clip,gender\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has the columns clip, gender; need file and emotion"):
        list(READERS["bhavvani"](tmp_path))


def labelled(corpus: str) -> list[Utterance]:
    """Return as many utterances of each label as are published."""
    about = corpus_table(corpus)
    return [
        about.utterance(Path(f"{label}{place}.wav"), speaker="1", emotion=label)
        for label, count in about.classes.items()
        for place in range(count)
    ]


def counted(corpus: str, map_name: str) -> dict[str, int]:
    places = Counter(class_index(utterance, map_name) for utterance in labelled(corpus))
    return {name: places[place] for place, name in enumerate(class_names(map_name))}


def test_the_order_of_four_is_the_packages() -> None:
    assert class_names("four") == FOUR_CLASSES


def test_mdat_counts_boredom_as_sad_and_strict_does_not() -> None:
    assert counted("emodb", "mdat") == {"angry": 127, "happy": 71, "neutral": 79, "sad": 143}
    assert sum(counted("emodb", "mdat").values()) == 420
    assert counted("emodb", "strict")["sad"] == 62
    assert class_map("mdat") == class_map("four+boredom")


def test_four_classes_of_iemocap_are_5531_with_excitement_merged() -> None:
    assert counted("iemocap", "four") == {"angry": 1103, "happy": 1636, "neutral": 1708, "sad": 1084}
    assert sum(counted("iemocap", "four").values()) == 5531
    assert sum(counted("iemocap", "four+unmerged").values()) == 5531 - 1041


def test_seven_classes_of_iemocap_are_7487() -> None:
    expected = {"angry": 1103, "excited": 1041, "happy": 595, "sad": 1084, "frustrated": 1849}
    assert counted("iemocap", "iemocap7") == {**expected, "surprised": 107, "neutral": 1708}
    assert sum(counted("iemocap", "iemocap7").values()) == 7487


@pytest.mark.parametrize(
    ("corpus", "map_name", "total"),
    [
        ("emovo", "four", 336),
        ("emovo", "emovo7", 588),
        ("emovo", "emovo6", 504),
        ("urdu", "four", 400),
        ("ravdess", "ravdess8", 1440),
        ("ravdess", "four", 672),
        ("ravdess", "four+calm", 864),
        ("emodb", "emodb7", 535),
        ("cremad", "crema6", 7442),
        ("cremad", "four", 4900),
        ("cafe", "cafe7", 936),
        ("tess", "tess7", 2800),
        ("savee", "savee7", 480),
        ("mesd", "mesd6", 864),
        ("esd", "esd5", 17500),
    ],
)
def test_class_maps_sum_to_the_published_counts(corpus: str, map_name: str, total: int) -> None:
    assert sum(counted(corpus, map_name).values()) == total


def test_published_counts_of_classes_and_partitions_sum_to_those_of_utterances() -> None:
    for name in [*READERS, "esd-en"]:
        about = corpus_table(name)
        for counts in (about.classes, about.partition_sizes):
            assert not counts or sum(counts.values()) == about.utterances, name


def test_every_label_a_reader_can_give_is_in_the_map_of_four() -> None:
    labels = class_map("four").labels
    for name in [*READERS, "esd-en"]:
        about = corpus_table(name)
        assert {*about.emotions.values(), *about.classes} <= set(labels[name]), name


def test_native_maps_hold_their_own_corpus_only() -> None:
    utterance = corpus_table("cremad").utterance(Path("a.wav"), speaker="1001", emotion="angry")
    assert class_index(utterance, "crema6") == 0
    assert class_index(utterance, "iemocap7") == -1
    assert class_names("bhavvani7") == ("neutral", "surprise", "enjoyment", "disgust", "anger", "fear", "sadness")


def test_a_corpus_without_table_counts_by_the_manifests_column() -> None:
    stranger = Utterance(Path("a.wav"), corpus="stranger", emotion="furious", emotion4="angry")
    assert class_index(stranger, "four") == 0
    assert class_index(stranger, "crema6") == -1
    assert class_index(Utterance(Path("a.wav"), corpus="stranger"), "four") == -1


@pytest.mark.parametrize("name", ["five", "aliases", "four+joy", "crema6+calm"])
def test_an_unknown_map_or_option_is_an_error_that_lists_the_known(name: str) -> None:
    with pytest.raises(ConfigError, match=r"four\+boredom|mdat|none"):
        class_names(name)


def test_every_named_map_exists() -> None:
    assert {"four", "iemocap7", "crema6", "ravdess8", "emodb7", "emovo7", "cafe7", "bhavvani7"} <= set(map_names())
    assert all(len(class_names(name)) == len(set(class_names(name))) for name in map_names())


@pytest.mark.parametrize("corpus", NAMES)
def test_a_manifest_gives_back_what_was_written(corpus: str, tmp_path: Path) -> None:
    found = read(corpus, tmp_path / "tree")
    write_manifest(tmp_path / "manifest.csv", found)
    assert read_utterances(tmp_path / "manifest.csv") == found
    clips = read_manifest(tmp_path / "manifest.csv")
    assert [(c.path, c.speaker, c.emotion) for c in clips] == [(u.path, u.speaker, u.emotion4) for u in found]
    assert (tmp_path / "manifest.csv").read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)


def test_paths_are_relative_below_the_manifest_and_absolute_elsewhere(tmp_path: Path) -> None:
    inside, outside = clip(tmp_path / "data" / "a.wav"), clip(tmp_path / "else" / "b.wav")
    write_manifest(tmp_path / "data" / "manifest.csv", [Utterance(inside), Utterance(outside)])
    rows = (tmp_path / "data" / "manifest.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["a.wav", outside.as_posix()]
    assert [u.path for u in read_utterances(tmp_path / "data" / "manifest.csv")] == [inside, outside]


def test_a_manifest_may_have_a_path_alone_or_more(tmp_path: Path) -> None:
    clip(tmp_path / "a.wav")
    (tmp_path / "bare.csv").write_text("path\na.wav\n", encoding="utf-8")
    assert read_utterances(tmp_path / "bare.csv") == [Utterance(tmp_path / "a.wav")]
    (tmp_path / "rich.csv").write_text(
        "path,arousal,valence,dominance,scale,start_s,end_s,mood\na.wav,7,4,1,1-7,0.5,2.0,x\n", encoding="utf-8"
    )
    utterance = read_utterances(tmp_path / "rich.csv")[0]
    assert utterance.attributes == (1.0, 0.5, 0.0)
    assert (utterance.start_s, utterance.end_s, utterance.duration_s) == (0.5, 2.0, 1.5)
    (tmp_path / "lines.jsonl").write_text('{"path": "a.wav", "arousal": 0.25, "gender": null}\n\n', encoding="utf-8")
    assert read_utterances(tmp_path / "lines.jsonl") == [Utterance(tmp_path / "a.wav", arousal=0.25)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\n", "lists no utterance"),
        ("file\na.wav\n", "lacks the column path"),
        ("path\nb.wav\n", ":2: no file"),
        ("path\na.wav\na.wav\n", "a.wav is listed twice"),
        ("path,emotion4\na.wav,joyful\n", "emotion4 is 'joyful'"),
        ("path,arousal\na.wav,high\n", "arousal is 'high'; need a number"),
        ("path,arousal\na.wav,nan\n", "arousal is 'nan'; need a number"),
        ("path,arousal\na.wav,3\n", "arousal is 3; need 0 to 1"),
        ("path,arousal,scale\na.wav,3,7\n", "scale is '7'; need its ends"),
    ],
)
def test_a_wrong_manifest_is_an_error_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    clip(tmp_path / "a.wav")
    (tmp_path / "manifest.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_utterances(tmp_path / "manifest.csv")


def test_a_missing_or_broken_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no manifest at"):
        read_utterances(tmp_path / "manifest.csv")
    (tmp_path / "lines.jsonl").write_text("[1]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="need one JSON object a line"):
        read_utterances(tmp_path / "lines.jsonl")
    (tmp_path / "lines.jsonl").write_text("{\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="need one JSON object a line"):
        read_utterances(tmp_path / "lines.jsonl")


@pytest.mark.corpora
def test_the_real_manifest_agrees_with_the_map_of_four(corpora: Path) -> None:
    utterances = read_utterances(corpora / "speech" / "manifest.csv")
    assert len(utterances) == len(read_manifest(corpora / "speech" / "manifest.csv"))
    names = class_names("four")
    for utterance in utterances:
        place = class_index(utterance, "four")
        assert (names[place] if place >= 0 else "") == utterance.emotion4
