from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workshop needs torch: pip install -e '.[train]'")

from train.students.config import SYSTEMS, StudentConfig  # noqa: E402
from train.students.examiner import Examiner  # noqa: E402
from train.students.familiarity import DOUBT, FARTHEST, Familiarity  # noqa: E402
from train.students.histories import Histories, HistoryShares, voice_of  # noqa: E402
from train.students.student import Student  # noqa: E402

WIDTH = 16


def student_of(system: str) -> Student:
    torch.manual_seed(0)
    sizes = {"mels": 16, "speech_width": WIDTH, "speech_blocks": 1, "speech_layers": 1, "told_width": 12}
    student = Student(StudentConfig(system, **sizes, vocabulary=50, text_width=16, unit=8, feed_forward=16))
    student.voice.learn_everybody(torch.randn(20, 2 * WIDTH))
    return student.eval()


def inputs_of(student: Student, seconds: float = 1.0, *, tokens: int = 0, batch: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    values = {
        "audio": torch.randn(batch, int(16_000 * seconds)) * 0.1,
        "text_ids": torch.arange(max(tokens, 1)).repeat(batch, 1),
        "text_mask": torch.full((batch, max(tokens, 1)), min(tokens, 1)),
        "prosody": torch.randn(batch, 103),
        "voice": torch.zeros(batch, 4 * WIDTH + 1),
        "pack_down": torch.zeros(batch, 2 * WIDTH, 8),
        "pack_up": torch.zeros(batch, 8, 132),
    }
    return {name: values[name] for name in student.inputs}


@pytest.fixture(params=SYSTEMS)
def student(request: pytest.FixtureRequest) -> Student:
    return student_of(request.param)


def test_utterances_of_every_length_have_finite_answers(student: Student) -> None:
    for seconds in (0.4, 1.0, 8.0):
        logits, embedding, frames = student(*inputs_of(student, seconds, tokens=3).values())
        assert logits.shape == (1, 4) and embedding.shape == (1, 2 * WIDTH)
        assert frames.shape[1] == pytest.approx(25 * seconds, abs=1)
        assert torch.isfinite(logits).all()


def test_a_fresh_voice_is_the_unadapted_model_and_a_known_voice_is_not(student: Student) -> None:
    values = inputs_of(student)
    fresh, embedding, _ = student(*values.values())
    nothing_heard = {**values, "voice": torch.cat([torch.zeros(1, 1), torch.randn(1, 4 * WIDTH)], dim=1)}
    assert torch.equal(student(*nothing_heard.values())[0], fresh)
    known = torch.cat([torch.tensor([[20.0]]), embedding + 0.5, torch.ones_like(embedding)], dim=1)
    warm, same_embedding, _ = student(*{**values, "voice": known}.values())
    assert not torch.allclose(warm, fresh)
    assert torch.equal(same_embedding, embedding)


def test_the_gate_closes_with_distance_once_it_has_learnt_to() -> None:
    student = student_of("lora")
    torch.nn.init.constant_(student.voice.strictness, 5.0)
    values = inputs_of(student)
    fresh, embedding, _ = student(*values.values())

    def moved_by(offset: float) -> float:
        voice = torch.cat([torch.tensor([[20.0]]), embedding + offset, torch.ones_like(embedding)], dim=1)
        return (student(*{**values, "voice": voice}.values())[0] - fresh).abs().max().item()

    assert moved_by(100.0) < 0.01 * moved_by(0.1)


def test_trust_grows_with_what_was_heard_and_nothing_heard_is_no_trust() -> None:
    voice = student_of("lora").voice
    torch.nn.init.zeros_(voice.alone.weight)
    torch.nn.init.zeros_(voice.alone.bias)
    frames, embedding = torch.randn(1, 10, WIDTH), torch.randn(1, 2 * WIDTH)

    def shares(counts: list[float]) -> list[float]:
        told = [torch.cat([torch.tensor([[n]]), embedding * 0.5, torch.zeros(1, 2 * WIDTH)], dim=1) for n in counts]
        opinions = [voice(frames, embedding, each)[1].detach() for each in told]
        return [float((opinion @ opinions[-1].T).sum() / opinions[-1].square().sum()) for opinion in opinions]

    nothing, one, five, twenty, _ = shares([0.0, 1.0, 5.0, 20.0, 1e6])
    assert nothing == 0.0 and one < 0.2 and 0.3 < five < 0.6 and twenty > 0.8


def test_what_lies_far_from_what_was_learnt_is_doubted() -> None:
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(8, 40, generator=generator)
    learnt = torch.randn(500, 8, generator=generator) @ plane + 0.1 * torch.randn(500, 40, generator=generator)
    familiarity = Familiarity(40)
    assert torch.equal(familiarity(learnt), torch.ones(500, 1))  # one that has learnt nothing doubts nothing
    familiarity.directions = torch.zeros(40, 8)
    familiarity.learn(learnt)
    like, far = torch.randn(200, 8, generator=generator) @ plane, torch.randn(200, 40, generator=generator)
    assert familiarity(like).max() < 1.1 and familiarity(far).min() > 1.2
    assert familiarity(1e6 * far).max() == 1.0 + DOUBT * (FARTHEST - 1.0)
    assert torch.isfinite(familiarity(0.0 * far)).all()


def test_doubt_leaves_the_answer_and_takes_confidence() -> None:
    student = student_of("lora")
    values = inputs_of(student)
    sure, embedding, _ = student(*values.values())
    student.familiarity.directions = torch.zeros(2 * WIDTH, 4)
    student.familiarity.learn(torch.randn(40, 2 * WIDTH) * 0.01 + embedding + 5.0)
    doubted = student(*values.values())[0]
    assert torch.equal(doubted.argmax(1), sure.argmax(1)) and doubted.abs().max() < 0.5 * sure.abs().max()


@pytest.mark.parametrize("system", ["mdat", "mha"])
def test_words_are_not_doubted_with_the_sound(system: str) -> None:
    student = student_of(system)
    silent, worded = inputs_of(student), inputs_of(student, tokens=5)
    heard = student.hear(worded["audio"], worded["voice"])
    added = {name: student.fusion(heard, told) for name, told in (("silent", silent), ("worded", worded))}
    student.familiarity.directions = torch.zeros(2 * WIDTH, 4)
    student.familiarity.learn(torch.randn(40, 2 * WIDTH) * 0.01 + heard.embedding + 5.0)
    doubt = student.familiarity(heard.embedding)
    assert doubt.item() > 2.0
    wanted = [heard.opinion / doubt + added["worded"], (heard.opinion + added["silent"]) / doubt]
    assert torch.allclose(student(*worded.values())[0], wanted[0], atol=1e-5)
    assert torch.allclose(student(*silent.values())[0], wanted[1], atol=1e-5)
    one_of_each = {name: value.repeat(2, *(1 for _ in value.shape[1:])) for name, value in worded.items()}
    one_of_each["text_mask"][1] = 0
    assert torch.allclose(student(*one_of_each.values())[0], torch.cat(wanted), atol=1e-4)


def test_the_examiner_judges_what_ships(monkeypatch: pytest.MonkeyPatch) -> None:
    student = student_of("mdat")
    values = inputs_of(student, tokens=5)
    told = {name: values[name].numpy() for name in ("text_ids", "text_mask")}
    examined = SimpleNamespace(
        heard=[student.listen(values["audio"])],
        texts=[(told["text_ids"], told["text_mask"])],
        prosody=[torch.randn(1, 103)],
        truth=[2],
    )
    for answer, score in ((2, 1.0), (1, 0.0)):
        logits = torch.nn.functional.one_hot(torch.tensor([answer]), 4).float()
        monkeypatch.setattr(student, "answer", lambda *_, logits=logits: logits)
        assert Examiner._ua(examined, student, values["voice"], words=True) == score


def test_the_level_of_the_recording_does_not_matter(student: Student) -> None:
    values = inputs_of(student)
    loud = student(*values.values())[0]
    quiet = student(*{**values, "audio": values["audio"] * 10 ** (-40 / 20)}.values())[0]
    assert torch.allclose(loud, quiet, atol=1e-3)


@pytest.mark.parametrize("system", ["mdat", "mha"])
def test_words_change_the_answer_and_only_real_ones_do(system: str) -> None:
    student = student_of(system)
    silent, spoken = inputs_of(student), inputs_of(student, tokens=3)
    without = student(*silent.values())[0]
    assert torch.equal(without, student(*{**silent, "text_ids": silent["text_ids"] + 17}.values())[0])
    told, _, _ = student(*spoken.values())
    assert not torch.allclose(told, without)
    padded = {
        name: torch.cat([spoken[name], torch.zeros(1, 4, dtype=torch.long)], dim=1) for name in student.inputs[1:3]
    }
    assert torch.allclose(student(*{**spoken, **padded}.values())[0], told, atol=1e-5)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_weight_of_a_fusion_learns(system: str) -> None:
    student = student_of(system).train()
    values = inputs_of(student, tokens=3, batch=4)
    values["voice"] = torch.rand(4, 4 * WIDTH + 1) + 1.0
    torch.nn.init.normal_(student.voice.portrait.weight)
    heard = student.hear(values["audio"], values["voice"])
    logits = heard.opinion + student.fusion(heard, values)
    gender = student.fusion.with_gender(heard)[1].sum() if system == "camulenet" else 0.0
    (logits.square().sum() + gender).backward()
    # Over the one token of prosody there is nothing to choose: its query and key decide nothing.
    no_use = {
        "inner.first.attention.query.weight",
        "inner.first.attention.key.weight",
        "inner.first.attention.query.bias",
    }
    no_use |= {"no_text", "missing_modality.text", "missing_modality.speech"}  # every row has words here
    still = [
        name
        for name, weight in [*student.fusion.named_parameters(), *student.voice.named_parameters()]
        if (weight.grad is None or not weight.grad.abs().sum()) and name not in no_use and not name.endswith("key.bias")
    ]
    assert still == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_shipped_size_is_within_three_million_parameters(system: str) -> None:
    assert sum(parameter.numel() for parameter in Student(StudentConfig(system)).parameters()) <= 3_000_000


def history(shares: HistoryShares) -> tuple[Histories, np.ndarray]:
    # Each embedding says whose it is (column 0), which recording (1) and its emotion (2).
    rows = [(speaker, 4 * speaker + take, take) for speaker in range(3) for take in range(4)]
    embeddings = [np.array([row], np.float32) for row in rows]
    speakers = [f"s{row[0]}" for row in rows]
    return Histories(embeddings, speakers, [row[2] for row in rows], neutral=2, shares=shares), np.array(rows)


def only(**shares: float) -> HistoryShares:
    none = {"fresh": 0.0, "mostly_neutral": 0.0, "one_emotion": 0.0, "mixed": 0.0, "wrong": 0.0}
    return HistoryShares(**{**none, **shares})  # type: ignore[arg-type]


def test_frames_in_which_nobody_speaks_count_for_nothing() -> None:
    speech = student_of("lora").speech
    with torch.no_grad():
        speech.presence.weight.zero_()
        speech.presence.weight[0, 0] = 10.0
        speech.presence.bias.zero_()
    said, nothing = torch.randn(1, 30, WIDTH), torch.randn(1, 20, WIDTH)
    said[..., 0], nothing[..., 0] = 3.0, -3.0
    whole = speech.pooled(torch.cat([nothing, said, nothing], dim=1))
    assert torch.allclose(whole, speech.pooled(said), atol=1e-4)
    assert torch.allclose(whole[0, :WIDTH], said[0].mean(0), atol=1e-4)


def test_a_voice_is_count_mean_and_deviation() -> None:
    voice = voice_of(np.array([[1.0, 2.0], [3.0, 2.0]], np.float32))
    assert voice.tolist() == [2.0, 2.0, 2.0, 1.0, 0.0]


def test_a_history_is_the_speakers_own_and_never_holds_the_utterance_itself() -> None:
    histories, _ = history(only())
    rng = np.random.default_rng(0)
    for _ in range(200):
        voice = histories.draw(5, rng)
        assert 1 <= voice[0] <= 61
        assert voice[1] == 1.0 and voice[4] == 0.0  # speaker 1 alone
        if voice[0] == 1:
            assert voice[2] != 5.0


def test_each_kind_of_history_is_what_it_says() -> None:
    rng = np.random.default_rng(0)
    assert not history(only(fresh=1.0))[0].draw(5, rng).any()
    wrong = history(only(wrong=1.0))[0]
    assert all(wrong.draw(5, rng)[1] in (0.0, 2.0) for _ in range(50))
    one = history(only(one_emotion=1.0))[0]
    assert all(one.draw(5, rng)[6] == 0.0 for _ in range(50))  # no deviation in the emotion
    mixed = history(only(mixed=1.0))[0]
    assert any(mixed.draw(5, rng)[4] > 0.0 for _ in range(50))
