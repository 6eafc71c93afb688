"""Checks of SQL: it parses in a dialect, and touches only tables and columns that are allowed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import re2

from tidegate.core.errors import nearest
from tidegate.evals.checks.check import Answer, Finding, Kind, Probe, as_map, as_text, listed, quoted

DIALECTS: Mapping[str, str] = {
    **dict.fromkeys(("mysql", "mariadb"), "mysql"),
    **dict.fromkeys(("postgresql", "postgres"), "postgres"),
    **dict.fromkeys(("transactsql", "tsql", "sqlserver"), "tsql"),
    **{name: name for name in ("bigquery", "snowflake", "sqlite", "redshift", "athena", "hive", "trino")},
    **{name: name for name in ("clickhouse", "databricks", "duckdb", "oracle", "presto", "spark")},
    "flinksql": "spark",
    "noql": "mysql",
    "db2": "postgres",
}
"""promptfoo's names, and more, in lower case → sqlglot's. Where it has no such dialect, the nearest."""

MAX_CHARS = 50_000
_FENCED = re2.compile(r"(?s)```(?:(?i:sql))?([^`]+)```")
_KEYS = ("databaseType", "allowedTables", "allowedColumns")


def _is_sql(value: Any) -> Probe:
    judge = _judge(value)
    return lambda answer: judge(answer.text)


def _contains_sql(value: Any) -> Probe:
    judge = _judge(value)

    def probe(answer: Answer) -> Finding:
        fenced = _FENCED.search(answer.text)
        return judge(fenced.group(1) if fenced else answer.text)

    return probe


def _judge(value: Any) -> Callable[[str], Finding]:
    given = {} if value is None else as_map(value, "{databaseType: …, allowedTables: […], allowedColumns: […]}", _KEYS)
    shown = given.get("databaseType", "MySQL")
    dialect = DIALECTS.get(str(shown).lower())
    if dialect is None:
        raise ValueError(f"no SQL dialect is called {shown!r}.{nearest(str(shown).lower(), list(DIALECTS))}")
    tables, columns = (_allowed(given.get(key), key) for key in _KEYS[1:])

    def judge(text: str) -> Finding:
        import sqlglot  # noqa: PLC0415 – a hundred milliseconds that only SQL is worth

        logging.getLogger("sqlglot").setLevel(logging.ERROR)
        if not text.strip():
            return Finding(False, "not SQL: there is none")
        if len(text) > MAX_CHARS:
            return Finding(False, f"not SQL that is read: longer than {MAX_CHARS:,} characters")
        try:
            parsed = [one for one in sqlglot.parse(text, read=dialect) if one is not None]
        except (sqlglot.errors.SqlglotError, RecursionError) as error:
            return Finding(False, f"not SQL of {shown}: {_because(error)}; {quoted(text)}")
        if not parsed or not all(map(_is_statement, parsed)):
            return Finding(False, f"not a statement of SQL: {quoted(text)}")
        used = [authority for one in parsed for authority in _uses(one)]
        for kind, allowed in (("table", tables), ("column", columns)):
            wrong = [name for which, name in used if which == kind and not _matches(name, allowed)]
            if wrong:
                return Finding(False, f"SQL, but it uses what is not allowed: {listed(sorted(set(wrong)))}")
        return Finding(True, f"is SQL: {quoted(text)}")

    return judge


def _because(error: Exception) -> str:
    errors = getattr(error, "errors", None)
    if not errors:
        return "it can not be read"
    first = errors[0]
    what = first["description"].partition(" but got")[0].rstrip(".").lower()
    return f"{what} at line {first['line']}, column {first['col']}"


def _is_statement(parsed: Any) -> bool:
    """Whether it is a statement, and not a mere expression: to the parser `hello world` is a name with an alias."""
    from sqlglot import exp  # noqa: PLC0415

    kinds = ("Query", "DML", "DDL", "Drop", "Alter", "TruncateTable", "Set", "Use", "Show", "Describe", "Transaction")
    more = ("Commit", "Rollback", "Grant", "Merge", "Copy", "Analyze", "Pragma")
    return isinstance(parsed, tuple(getattr(exp, kind) for kind in (*kinds, *more)))


def _uses(statement: Any) -> Iterator[tuple[str, str]]:
    """What a statement touches, as promptfoo spells it: `select::null::orders` and `select::orders::total`."""
    from sqlglot import exp  # noqa: PLC0415

    names = {one.alias_or_name for one in statement.find_all(exp.CTE)}
    aliases = {table.alias: table.name for table in statement.find_all(exp.Table) if table.alias}
    changed = statement.find(exp.Table) if isinstance(statement, exp.DML | exp.DDL | exp.Drop | exp.Alter) else None
    verb = "select" if isinstance(statement, exp.Query) else statement.key
    for table in statement.find_all(exp.Table):
        if table.name not in names:
            yield "table", f"{verb if table is changed else 'select'}::{table.db or 'null'}::{table.name}"
    for column in statement.find_all(exp.Column):
        set_by = isinstance(column.parent, exp.EQ) and isinstance(column.parent.parent, exp.Update)
        action = "update" if set_by and column is column.parent.this else "select"
        name = "(.*)" if isinstance(column.this, exp.Star) else column.name
        yield "column", f"{action}::{aliases.get(column.table, column.table) or 'null'}::{name}"
    for star in statement.find_all(exp.Star):
        if isinstance(star.parent, exp.Select):
            yield "column", "select::null::(.*)"
    if isinstance(statement, exp.Insert) and isinstance(statement.this, exp.Schema):
        for column in statement.this.expressions:
            yield "column", f"insert::{statement.this.this.name}::{column.name}"


def _allowed(value: Any, key: str) -> list[Any] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError(f"{key} is a list of patterns such as select::null::orders")
    patterns = []
    for one in value:
        try:
            options = re2.Options()
            options.log_errors = False
            patterns.append(re2.compile(f"(?i)^(?:{as_text(one)})$", options))
        except re2.error as error:
            raise ValueError(f"{key}: not a pattern RE2 can use: {one}") from error
    return patterns


def _matches(name: str, allowed: list[Any] | None) -> bool:
    return allowed is None or any(pattern.search(name) for pattern in allowed)


KINDS: Mapping[str, Kind] = {
    "is-sql": Kind(
        _is_sql,
        "The answer is SQL of a dialect (MySQL unless `databaseType` says otherwise), and uses only what is allowed.",
        {"is-sql": {"databaseType": "PostgreSQL", "allowedTables": ["select::null::orders"]}},
    ),
    "contains-sql": Kind(
        _contains_sql, "The same of the first fenced block, or of the whole answer when it has none.", "contains-sql"
    ),
}
