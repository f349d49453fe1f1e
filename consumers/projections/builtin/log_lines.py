"""`log_lines`: what a job said."""

from ..fold.arrays import strings
from ..fold.batch import Batch
from ..projection import Body, Projection, Rows


class LogLines(Projection, name="log_lines", version=1, types=("log.line",)):
    """Lines of text with their level, logger and fields."""

    tables = {"log_lines": "level VARCHAR, logger VARCHAR, message VARCHAR, fields VARIANT"}
    bodies = {
        "log.line": Body(
            "log_lines",
            "any_value({'message': message, 'level': level, 'logger': logger, 'fields': fields::JSON})",
            "struct_update(held, fields := coalesce(held.fields, '{}'::JSON))::JSON",
        )
    }

    def fold(self, batch: Batch) -> Rows:
        """Return a row for each line."""
        found = batch.of("log.line")
        if not len(found):
            return {}
        lines = found.bodies
        columns = {
            "level": strings([line.level for line in lines]),
            "logger": strings([line.logger for line in lines]),
            "message": [line.message for line in lines],
            "fields": [line.fields or None for line in lines],
        }
        return {"log_lines": found.columns(columns)}
