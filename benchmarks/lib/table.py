"""The figures of the training benchmark: what follows from them, and the table that is printed."""

from typing import Any

WORKLOAD = 6680 + 835  # images of the reference workload's train and valid splits
TARGETS = {"head_ratio": 60, "head_over_floor": 1.3, "whole_network_ratio": 1.5, "rank_efficiency": 0.9}

Figures = dict[str, Any]


def summary(figures: Figures) -> Figures:
    """The ratios. Start-up (imports, building, exporting, calibrating) is outside head_ratio, on both sides."""
    reference, ours, floor = (figures["head"][name] for name in ("reference", "kennel", "floor"))
    count = sum(figures["images"].values())
    steady = ours["features_seconds"] + ours["head_seconds"]
    start = ours["total_seconds"] - steady
    least = count / max(floor["decode"].values()) + count / max(floor["forward"].values())
    epochs_seconds, scale = sum(reference["epoch_seconds"]), WORKLOAD / count
    pairs = {
        kind: figures["ranks"][f"{kind}_2"] / (2 * figures["ranks"][f"{kind}_1"]) for kind in ("features", "whole")
    }
    return {
        "head_ratio": epochs_seconds / steady,
        "head_ratio_with_start": (epochs_seconds + reference["start_seconds"]) / ours["total_seconds"],
        "head_ratio_at_workload": (epochs_seconds * scale + reference["start_seconds"]) / (steady * scale + start),
        "head_over_floor": ours["features_seconds"] / least,
        "floor_seconds": least,
        "whole_network_ratio": figures["whole"]["kennel"]["images_per_second"]
        / figures["whole"]["reference"]["images_per_second"],
        "rank_efficiency": min(pairs.values()),
        "rank_efficiency_of": pairs,
        "accuracy_reference": reference["valid_accuracy"][-1],
        "accuracy_kennel": ours["valid_accuracy"],
    }


def show(figures: Figures) -> None:
    """Print the table."""
    reference, ours, floor = (figures["head"][name] for name in ("reference", "kennel", "floor"))
    count, epochs = sum(figures["images"].values()), figures["epochs"]
    epochs_seconds = sum(reference["epoch_seconds"])
    pass_seconds = ours["features_seconds"]
    print(f"{figures['machine']}\n")
    print(f"ResNet-50 at 224, {figures['images']['train']} + {figures['images']['valid']} images, {epochs} epochs")
    _row("head: reference recipe", epochs_seconds, epochs * count / epochs_seconds)
    print(f"{'':<34} valid accuracy {figures['accuracy_reference']:.3f}")
    _row(f"head: Kennel, features in {ours['arithmetic']}", pass_seconds, count / pass_seconds)
    print(f"{'  the head itself':<34} {ours['head_seconds']:>9.2f} s")
    print(f"{'':<34} valid accuracy {figures['accuracy_kennel']:.3f}")
    _row("floor: decoding", count / max(floor["decode"].values()), max(floor["decode"].values()))
    for kind, rate in floor["forward"].items():
        _row(f"floor: forward, {kind}", count / rate, rate)
    print(f"head_ratio {figures['head_ratio']:.1f}; over the floor {figures['head_over_floor']:.2f}")
    print(f"  with the start of both {figures['head_ratio_with_start']:.1f};", end=" ")
    print(f"computed for {WORKLOAD:,} images, start included {figures['head_ratio_at_workload']:.1f}\n")
    for name, shown in (("reference", "torchvision"), ("kennel", "Kennel")):
        speed, share = (figures["whole"][name][key] for key in ("images_per_second", "gpu_busy"))
        gpu = "" if share is None else f", GPU busy {share:.0%}"
        print(f"{'whole network: ' + shown:<34} {speed:>9.2f} images/s{gpu}")
    print(f"whole_network_ratio {figures['whole_network_ratio']:.2f}\n")
    for kind, efficiency in figures["rank_efficiency_of"].items():
        one, two = (figures["ranks"][f"{kind}_{ranks}"] for ranks in (1, 2))
        print(f"{kind + ', 1 and 2 ranks of one core':<34} {one:>9.2f} {two:>9.2f} images/s: {efficiency:.2f}")
    print(f"rank_efficiency {figures['rank_efficiency']:.2f}")
    print("to reach: " + ", ".join(f"{name} {value}" for name, value in TARGETS.items()))


def _row(name: str, seconds: float, rate: float) -> None:
    print(f"{name:<34} {seconds:>9.2f} s {rate:>9.2f} images/s")
