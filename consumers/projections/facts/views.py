"""What SQL shows of a system: a view for each fact, and those of cases that have no table of their own."""

from .case_tables import case_views, relation_of
from .judged import judged_of, windowed
from .modules import Module
from .naming import fact_view, own_name, reference_view
from .sql import fact_sql


def views_of(module: Module) -> dict[str, str]:
    """Return the views of a system, by name.

    A fact with a window reads what was stored as it was folded; what SQL alone says of it is a hidden view beside it.
    """
    views: dict[str, str] = {}
    for info in module.cases.values():
        views.update(case_views(info))
    judged = judged_of(module.system, module.facts, module.program.cases)
    for name, one in module.facts.items():
        view, asked = (
            fact_view(module.system, own_name(name)),
            fact_sql(one, relation_of(module.program.cases[one.case])),
        )
        if windowed(one):
            views[view] = judged[one.case].view(name)
            views[reference_view(module.system, own_name(name))] = asked
        else:
            views[view] = asked
    return views
