from __future__ import annotations

from tailrace.worker.leftovers import remove_leftovers


async def test_only_directories_of_nobody_go(tmp_path):
    basedir = tmp_path / "w"
    for name in ("b", "old", "info", ".hidden"):
        (basedir / name / "sub").mkdir(parents=True)
    (basedir / "file").write_text("")
    (basedir / "link").symlink_to(tmp_path)
    await remove_leftovers(basedir, {"b"})
    assert {path.name for path in basedir.iterdir()} == {"b", "info", ".hidden", "file", "link"}
