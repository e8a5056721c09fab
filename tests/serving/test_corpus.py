"""Documentation becomes documents; nothing held out is trained on."""

from hypothesis import given
from hypothesis import strategies as st

from serving import corpus
from serving.corpus import Document

LONG = "Return the eigenvalues of a matrix whose entries are rational numbers, in the order of their multiplicity. "


def module(path: str, text: str) -> tuple[Document, list[str]]:
    """One module with one docstring."""
    return Document("domain", "sympy", path, ""), [text]


def words(numbers) -> str:
    """Text of distinct words."""
    return " ".join(f"word{number}" for number in numbers)


def test_only_longer_docstrings_are_read():
    """Labels, comments and code are left."""
    source = f'"""Short."""\n# a comment\ndef f():\n    """{LONG * 2}"""\nx = "{LONG * 2}"\n'
    assert list(corpus.docstrings(source.encode())) == [(LONG * 2).strip()]


def test_a_module_that_does_not_parse_has_no_docstrings():
    """A template or an old dialect is skipped."""
    assert list(corpus.docstrings(b"def (:")) == []
    assert list(corpus.docstrings(b"\x00")) == []


def test_text_in_another_script_is_left_out():
    """The tokenizer is learnt from mostly ASCII text."""
    assert list(corpus.docstrings(f'"""{"графы и деревья " * 20}"""'.encode())) == []


def test_whoever_comes_first_keeps_a_repeated_text():
    """The second module repeats the first one's docstring and is dropped."""
    kept = list(corpus.without_repeats([module("a.py", words(range(60))), module("b.py", words(range(60)))]))
    assert [document.path for document in kept] == ["a.py"]


@given(st.integers(0, 10_000), st.integers(60, 200))
def test_a_text_repeats_itself_and_not_another(start, length):
    """Shingles of the same text are the same; distinct words share none."""
    text, other = words(range(start, start + length)), words(range(start + length, start + 2 * length))
    assert corpus.shingles(text) == corpus.shingles(text.upper())
    assert not corpus.shingles(text) & corpus.shingles(other)


@given(st.text())
def test_every_path_has_one_split_for_ever(path):
    """The split depends on the path alone."""
    assert corpus.split_of(path) in {"train", "validation", "test"}
    assert corpus.split_of(path) == corpus.split_of(path)


def test_about_a_tenth_is_held_out():
    """Two in twenty for tests, one for watching the training."""
    splits = [corpus.split_of(f"package/module_{number}.py") for number in range(4000)]
    assert 0.08 < splits.count("test") / 4000 < 0.12
    assert 0.03 < splits.count("validation") / 4000 < 0.07


def test_a_folder_of_packages_becomes_files_and_licences(tmp_path):
    """Each slice and split has a file; each source names its licence; no held-out text is in training."""
    packages, out = tmp_path / "packages", tmp_path / "text"
    for number in range(40):
        path = packages / "sympy" / f"module_{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""{words(range(100 * number, 100 * number + 60))}"""\n')
    info = packages / "sympy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: sympy\nVersion: 1.0\nLicense: BSD\n")
    (info / "RECORD").write_text("sympy/module_1.py,,\n")
    corpus.write(packages, out)
    counts = {path.name: len(path.read_text().split("\n")) for path in out.glob("domain-*.jsonl")}
    assert set(counts) == {"domain-train.jsonl", "domain-validation.jsonl", "domain-test.jsonl"}
    assert '"sympy": "sympy 1.0: BSD"' in (out / "licences.json").read_text()
    trained, held_out = ((out / f"domain-{split}.jsonl").read_text() for split in ("train", "test"))
    assert held_out.strip()
    assert not corpus.shingles(held_out) & corpus.shingles(trained) - corpus.shingles("")
