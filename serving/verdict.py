"""What the table of an adaptation says, and whether it is good enough (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serving.recipe import Recipe


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay the rows out for a terminal."""
    lines = [f"{'held-out':9} {'model':15} {'perplexity':>10}  {'against baseline':22} {'next token':>10}  gain"]
    for row in rows:
        ratio = "x{:.2f} [{:.2f}, {:.2f}]".format(row["ratio"], *row["ratio_interval"])
        gain = "{:+.3f} [{:+.3f}, {:+.3f}]".format(row["gain"], *row["gain_interval"])
        lines.append(
            f"{row['slice']:9} {row['model']:15} {row['perplexity']:10.1f}  {ratio:22} {row['accuracy']:10.3f}  {gain}"
        )
    return "\n".join(lines)


def complaint(rows: Sequence[Mapping[str, Any]], recipe: Recipe) -> str | None:
    """Say what the candidates owe: better in the domain, no worse in general within the margin. None if all is well."""
    limits = {"domain": recipe.domain_gain, "general": recipe.general_margin}
    for row in rows:
        if row["model"] != "baseline" and not row["ratio"] <= limits[row["slice"]]:
            return (
                f"{row['model']} has {row['ratio']:.3f} times the baseline's {row['slice']} perplexity, "
                f"at most {limits[row['slice']]} is allowed; change the recipe's share or steps in serving/recipe.py"
            )
    return None
