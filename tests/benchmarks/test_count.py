"""`make count` counts what it says."""

from benchmarks.count import by_folder, one_importer


def test_a_folder_counts_with_all_that_is_below_it() -> None:
    lines = {"app.py": 15, "kennel/cli.py": 10, "kennel/page/server.py": 20, "lambda/classify/handler.py": 5}
    assert by_folder(lines) == {"app.py": (1, 15), "kennel": (2, 30), "kennel/page": (1, 20), "lambda": (1, 5)}


def test_a_file_that_one_other_imports_is_listed_however_it_is_imported() -> None:
    sources = {
        "app.py": "import stacks.a\nfrom stacks import b\n",
        "stacks/__init__.py": "",
        "stacks/a.py": "from . import b\n",
        "stacks/b.py": "",
        "stacks/c.py": "from stacks.b import x\n",
        "lambda/classify/logic.py": "",
        "lambda/classify/handler.py": "def f():\n    from classify import logic\n",
        "kennel/cli.py": "COMMANDS = {'status': 'kennel.status'}\n",
        "kennel/status.py": "",
    }
    assert one_importer(sources) == ["stacks/a.py", "lambda/classify/logic.py", "kennel/status.py"]
