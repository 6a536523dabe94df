"""Names to classes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from boxwright.backbones.resnet_vd import ResNetVD
from boxwright.compose.parts import FOLDERS, find_part, list_parts, part_summary, unknown
from boxwright.necks.fpn import FPN
from boxwright.necks.hybrid_encoder import HybridEncoder


def test_the_folder_is_the_registry() -> None:
    assert {"fpn", "hybrid_encoder", "identity"} <= set(list_parts("necks"))
    assert "resnet_vd" in list_parts("backbones")
    assert "rtdetr" in list_parts("heads")


def test_files_with_an_underscore_are_not_parts() -> None:
    assert not any(name.startswith("_") for folder in FOLDERS for name in list_parts(folder))


def test_names_lead_to_the_class_in_all() -> None:
    assert find_part("necks", "fpn") is FPN
    assert find_part("backbones", "resnet_vd") is ResNetVD


def test_dashes_count_as_underscores() -> None:
    assert find_part("necks", "hybrid-encoder") is HybridEncoder


def test_every_part_says_in_one_line_what_it_is() -> None:
    for folder in FOLDERS:
        for name in list_parts(folder):
            assert 10 < len(part_summary(folder, name)) < 120


def test_a_misspelled_name_lists_the_choices_and_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown neck 'fnp'; did you mean 'fpn'\? necks: .*identity"):
        find_part("necks", "fnp")


def test_a_name_like_nothing_gets_no_suggestion() -> None:
    assert unknown("neck", "zzzz", ["fpn"], "necks") == "unknown neck 'zzzz'; necks: fpn"


def test_a_part_outside_comes_by_the_same_door(outside: str) -> None:
    part = find_part("necks", f"{outside}:Scaler")
    assert part.__name__ == "Scaler"
    assert part({}, factor=2.0).factor == 2.0


def test_an_untrusted_module_is_not_imported(outside: str) -> None:
    with pytest.raises(ValueError, match="code outside Boxwright"):
        find_part("necks", f"{outside}:Scaler", trusted=())
    assert outside not in sys.modules
    assert find_part("necks", f"{outside}:Scaler", trusted=(outside,)).__name__ == "Scaler"
    # The user's own import is their word.
    assert find_part("necks", f"{outside}:Scaler", trusted=()).__name__ == "Scaler"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package.x:Y", "no module named 'no_such_package'"),
        ("json:loads", "not a torch.nn.Module class"),
        ("subprocess:Popen", "not a torch.nn.Module class"),
        ("json:nothing", "module json has no 'nothing'"),
    ],
)
def test_what_is_not_a_part_outside(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_part("necks", name)


def test_listing_does_not_import_torch() -> None:
    code = (
        "import sys, boxwright\n"
        "from boxwright.compose.parts import list_parts, part_summary\n"
        "from boxwright.compose.recipes import list_recipes, recipe_summary\n"
        "[part_summary('necks', name) for name in list_parts('necks')]\n"
        "[recipe_summary(name) for name in list_recipes()]\n"
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
