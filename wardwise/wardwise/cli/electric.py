"""Energy and certified service levels of a plan on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from wardwise.fleet.problem import Instance
    from wardwise.report import ElectricKpis


def electric_figures(instance: Instance, kpis: ElectricKpis) -> Table:
    """Table of energy and certified service levels."""
    table = Table(show_header=False)
    unit = " Wh" if instance.site else ""
    if kpis.energy:
        energy = kpis.energy
        table.add_row("energy used", f"{energy.energy_wh:,.1f}{unit}")
        charged = f"{energy.charged_wh:,.1f}{unit} in {energy.num_charges} charge"
        charged += "" if energy.num_charges == 1 else "s"
        table.add_row("energy charged", charged)
        lowest = f"{energy.lowest_pct:.1f} % of its battery, robot {energy.lowest_robot}"
        table.add_row("lowest level", lowest)
    if kpis.service:
        service = kpis.service
        table.add_row("largest late share", _share(service.largest, service.upper))
        for level in service.classes:
            text = f"{_share(level.largest, level.upper)}, promised {100 * level.promised:g} %"
            table.add_row(f"{level.priority} late", text)
        text = _share(service.return_largest, service.return_upper)
        table.add_row("robots back late", f"{text}, promised {100 * service.return_promised:g} %")
        late_s = service.expected_lateness_s
        late = f"{late_s / 60:,.1f} min" if instance.site else f"{late_s:,.1f}"
        table.add_row("expected lateness", f"{late} in all")
        verdict_text = "kept" if service.holds else "not kept"
        days = f"{service.num_scenarios:,} random days, {100 * service.confidence:g} % confidence"
        table.add_row(f"promise by {service.scope}", f"{verdict_text} ({days})")
    return table


def _share(share: float, upper: float) -> str:
    """Share of the random days, and its bound."""
    return f"{100 * share:.2f} %, at most {100 * upper:.2f} %"
