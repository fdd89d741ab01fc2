"""The house style: how every panel and every dashboard of this project looks."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

# Grafana's grid is 24 wide. Six figures, three or two charts make a line that reads well at 1366 pixels.
FIGURE, THIRD, HALF = 4, 8, 12
_FIGURE_HEIGHT, _CHART_HEIGHT, _TABLE_HEIGHT = 4, 8, 6

TAG = "llm-router"
GREEN, YELLOW, RED = "green", "yellow", "red"
OVERHEAD_LIMIT_S = 0.1

_DATASOURCE = common_models.DataSourceRef(type_val="prometheus", uid="${datasource}")

Panel = timeseries.Panel | stat.Panel | table.Panel


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and how its series are called in the legend."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels under it, left to right."""

    title: str
    panels: tuple[Panel, ...]


def chart(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = THIRD,
    stacked: bool = False,
    logarithmic: bool = False,
    limit: float | None = None,
) -> Panel:
    """Return lines over time, from zero; `limit` draws a dashed red line."""
    panel = timeseries.Panel().title(title).description(description).unit(unit)
    panel = panel.id(_stable_id(title)).datasource(_DATASOURCE).span(width).height(_CHART_HEIGHT)
    panel = panel.line_width(1).fill_opacity(25 if stacked else 5).show_points(common_models.VisibilityMode.NEVER)
    panel = panel.legend(_legend()).tooltip(_tooltip())
    if logarithmic:
        scale = common.ScaleDistributionConfig().type(common_models.ScaleDistribution.LOG).log(10)
        panel = panel.scale_distribution(scale)
    else:
        panel = panel.axis_soft_min(0)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if limit is not None:
        dashed = common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(dashed).thresholds(_thresholds((GREEN, None), (RED, limit)))
    return panel.targets(_targets(queries))


def figure(
    title: str,
    description: str,
    unit: str,
    expr: str,
    *steps: tuple[str, float],
    base: str = GREEN,
    decimals: int | None = None,
    trend: bool = True,
) -> Panel:
    """Return one number, coloured `base` and then by the last of `steps` (colour, from) that it reaches."""
    panel = stat.Panel().title(title).description(description).unit(unit)
    panel = panel.id(_stable_id(title)).datasource(_DATASOURCE).span(FIGURE).height(_FIGURE_HEIGHT)
    panel = panel.thresholds(_thresholds((base, None), *steps)).color_mode(common_models.BigValueColorMode.VALUE)
    graph = common_models.BigValueGraphMode.AREA if trend else common_models.BigValueGraphMode.NONE
    panel = panel.graph_mode(graph).reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    if decimals is not None:
        panel = panel.decimals(decimals)
    return panel.targets(_targets([Query(expr)]))


def listing(title: str, description: str, unit: str, expr: str, *, width: int = HALF) -> Panel:
    """Return the labels and values of an expression, now, as a table."""
    panel = table.Panel().title(title).description(description).unit(unit)
    panel = panel.id(_stable_id(title)).datasource(_DATASOURCE).span(width).height(_TABLE_HEIGHT)
    without_time = models.DataTransformerConfig(
        id_val="organize", options={"excludeByName": {"Time": True}, "renameByName": {"Value": "count"}}
    )
    query = prometheus.Dataquery().expr(expr).ref_id("A").instant().format(PromQueryFormat.TABLE)
    return panel.with_transformation(without_time).targets([query])


def variable(
    name: str, metric: str, *, label: str | None = None, default: str | None = None
) -> dashboard.QueryVariable:
    """Return a variable over the values of a metric's label of that name; all of them unless there is a default."""
    values = f"label_values({metric}, {label or name})"
    result = dashboard.QueryVariable(name).label(name.capitalize()).datasource(_DATASOURCE)
    result = result.query(values).definition(values).sort(models.VariableSort.ALPHABETICAL_ASC)
    result = result.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    if default is not None:
        return result.current(models.VariableOption(selected=True, text=default, value=default))
    everything = models.VariableOption(selected=True, text="All", value="$__all")
    return result.multi(True).include_all(True).all_value(".*").current(everything)


def house(
    uid: str, title: str, description: str, variables: Sequence[dashboard.QueryVariable], rows: Sequence[Row]
) -> dashboard.Dashboard:
    """Return a dashboard with the data source variable and links to its sisters."""
    result = dashboard.Dashboard(title).uid(uid).description(description).tags([TAG]).readonly()
    result = result.timezone("browser").time("now-30m", "now").refresh("10s")
    result = result.tooltip(models.DashboardCursorSync.CROSSHAIR)
    sisters = dashboard.DashboardLink("LLM router").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
    result = result.link(sisters.include_vars(True).keep_time(True).as_dropdown(False).placement(""))
    source = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    source = source.current(models.VariableOption(selected=True, text="default", value="default"))
    result = result.variables([source, *variables])
    for row in rows:
        result = result.with_row(dashboard.Row(row.title).id(_stable_id(f"row {row.title}")))
        for panel in row.panels:
            result = result.with_panel(panel)
    return result


def _stable_id(title: str) -> int:
    """Return an id that stays when other panels come and go, so that links and screenshots keep working."""
    return zlib.crc32(title.encode()) % 1_000_000


def _targets(queries: Sequence[Query]) -> list[Any]:
    return [
        prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto").ref_id(ref_id)
        for ref_id, query in zip(ascii_uppercase, queries, strict=False)
    ]


def _legend() -> common.VizLegendOptions:
    placed = common.VizLegendOptions().show_legend(True).placement(common_models.LegendPlacement.BOTTOM)
    return placed.display_mode(common_models.LegendDisplayMode.LIST)


def _tooltip() -> common.VizTooltipOptions:
    every = common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI)
    return every.sort(common_models.SortOrder.DESCENDING)


def _thresholds(*steps: tuple[str, float | None]) -> dashboard.ThresholdsConfig:
    absolute = dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE)
    return absolute.steps([models.Threshold(color=color, value=value) for color, value in steps])
