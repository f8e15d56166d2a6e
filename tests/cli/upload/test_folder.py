"""What is said about a folder before anything of it is sent."""

import os
import re
from pathlib import Path

import pytest

from kennel.errors import KennelError
from kennel.upload.folder import scan_folder, with_hashes
from tests.cli.trees import png, tree


def refused(folder: Path) -> str:
    with pytest.raises(KennelError) as caught:
        scan_folder(folder)
    return str(caught.value)


def test_class_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    seen = scan_folder(tree(tmp_path, "dog/1.png", "cat/1.png", "cat/deep/2.png"))
    assert seen.classes == ("cat", "dog")
    assert seen.splits == ()
    assert [image.name for image in seen.images] == ["cat/1.png", "cat/deep/2.png", "dog/1.png"]


def test_splits_are_recognized_and_not_taken_for_classes(tmp_path: Path) -> None:
    seen = scan_folder(tree(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/2.png", "test/b/2.png"))
    assert seen.classes == ("a", "b")
    assert seen.splits == ("test", "train", "valid")


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "Testing"),
        ("training", "validation", "test"),
        ("Train", "Val", "Eval"),
        ("TRAIN", "dev", "holdout"),
    ],
)
def test_splits_under_other_usual_names_are_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    seen = scan_folder(tree(tmp_path, *(f"{split}/{name}/{split}.png" for split in names for name in ("a", "b"))))
    assert seen.classes == ("a", "b")
    assert {"train", "test"} <= set(seen.splits)


def test_a_class_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    seen = scan_folder(tree(tmp_path, "bus/1.png", "train/1.png", "zebra/1.png"))
    assert (seen.classes, seen.splits) == (("bus", "train", "zebra"), ())


def test_what_is_not_used_is_counted_by_kind_with_what_to_do(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "b/1.png")
    for name in ("a/1.HEIC", "a/2.heic", "b/notes.txt", "b/README"):
        (tmp_path / name).write_bytes(b"x")
    assert scan_folder(tmp_path).unused == (
        "2 HEIC: pictures of kinds that are not read; convert them to JPEG or PNG; "
        "1 without a suffix, 1 TXT: no pictures by their names"
    )


@pytest.mark.parametrize(
    "name", [".DS_Store", "Thumbs.db", "@eaDir/1.png", ".ipynb_checkpoints/1.png", "a/desktop.ini", "a/@eaDir/1.png"]
)
def test_what_machines_put_beside_photographs_is_neither_class_nor_data(tmp_path: Path, name: str) -> None:
    seen = scan_folder(tree(tmp_path, "a/1.png", "b/1.png", name))
    assert (len(seen.images), seen.classes, seen.left_out) == (2, ("a", "b"), ())


def test_what_is_no_image_is_left_out_and_named(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a" / "notes.txt").write_text("x")
    assert scan_folder(tmp_path).left_out == ("a/notes.txt",)


def test_hidden_files_are_not_even_named(tmp_path: Path) -> None:
    seen = scan_folder(tree(tmp_path, "a/1.png", "b/1.png", "a/._1.png", ".git/x/1.png", "__MACOSX/a/1.png"))
    assert len(seen.images) == 2
    assert seen.left_out == ()


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "holds no images"),
        (["1.png", "a/1.png"], "1.png lies in no class folder"),
        (["a/1.png"], "one class only \\(a\\)"),
        (["dogs/a/1.png", "dogs/b/1.png"], "Did you mean .*dogs\\?"),
        (["train/a/1.png", "train/b/1.png", "c/1.png"], "c lies beside train"),
        (["test/a/1.png", "test/b/1.png"], "no train folder"),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png"], "Class c has images in test but none in train"),
        (["train/a/1.png", "train/b/1.png", "val/a/2.png", "valid/a/3.png"], "two folders for one split"),
        (["train/1.png", "test/1.png"], "test, train hold pictures and no class folders"),
        (["one/a/1.png", "one/b/1.png", "two/a/2.png", "two/b/2.png"], "one, two all hold a, b: if they are splits"),
        (["train/1.png", "train/a/1.png", "train/b/1.png"], "train/1.png lies in no class folder"),
    ],
)
def test_a_tree_that_cannot_be_trained_on_is_refused(tmp_path: Path, names: list[str], says: str) -> None:
    assert re.search(says, refused(tree(tmp_path, *names)))


def test_a_class_folder_without_images_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "c").mkdir()
    assert "Class folder c holds no images" in refused(tmp_path)


def test_a_folder_that_is_missing_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(png())
    assert "does not exist" in refused(tmp_path / "nowhere")
    assert "is a file" in refused(tmp_path / "file")


@pytest.mark.parametrize("target", ["1.png", "nowhere.png", ".."])
def test_a_symbolic_link_is_refused_wherever_it_leads(tmp_path: Path, target: str) -> None:
    tree(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a" / "link.png").symlink_to(target)
    assert "a/link.png is a symbolic link" in refused(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tree(tmp_path, "a/1.png", "b/1.png") / "a" / "pipe.png")
    assert "a/pipe.png is no regular file" in refused(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tree(tmp_path, "a/1.png", "b/1.png") / "a" / "1.png").chmod(0)
    assert "a/1.png cannot be read" in refused(tmp_path)


def test_a_file_that_goes_away_meanwhile_is_named(tmp_path: Path) -> None:
    seen = scan_folder(tree(tmp_path, "a/1.png", "b/1.png"))
    (tmp_path / "b" / "1.png").unlink()
    with pytest.raises(KennelError, match=r"b/1\.png cannot be read"):
        with_hashes(seen, lambda read: None)


@pytest.mark.parametrize("name", [b"a/\xff.png", b"a/new\nline.png", b"a/\x1b[31m.png"])
def test_a_name_that_no_terminal_can_print_is_refused_in_ascii(tmp_path: Path, name: bytes) -> None:
    tree(tmp_path, "a/1.png", "b/1.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(png())
    said = refused(tmp_path)
    assert "rename it" in said
    assert said.isascii()
    assert said.isprintable()
