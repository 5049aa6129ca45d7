"""``axe check``: whether everything would run, asked without changing anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from ..errors import AxeError, ConfigError, PluginError, SourceUnavailable
from .session import Session, table

if TYPE_CHECKING:
    from ..config import Config, LettersConfig, MisfitConfig
    from ..sources import Source
    from ..store import Control, Store

_OK, _NOTE, _PROBLEM = "ok", "note", "problem"


class Finding(NamedTuple):
    """What was looked at, how it is (ok, note, problem), and what is to be said about it."""

    subject: str
    result: str
    message: str = ""


def check(ctx: typer.Context) -> int:
    """Look whether everything would run.

    Looks at configuration, plugins, source, topics, databases and positions, and changes nothing. Exits with 1
    if something is wrong.
    """
    from .processors import described, described_plugins
    from .run import require_installed

    session: Session = ctx.obj
    findings = _configuration(session)
    require_installed(session)
    rows = described(session)
    findings += [_of_processor(row) for row in rows]
    findings += [_of_plugin(row) for row in described_plugins(session)]
    topics = {row["name"]: _topics(row["topics"]) for row in rows if row["status"] == "ready"}
    versions = {row["name"]: row["version"] for row in rows if row["status"] == "ready"}
    source, found = _source(session)
    findings += found + _unread(session, rows)
    if source is not None:
        findings += _of_topics(source, topics) + _of_letter_topics(session.config, source, topics)
    for name in _known(session):
        findings += _of_store(session, name, versions.get(name), source)
    wrong = sum(finding.result == _PROBLEM for finding in findings)
    session.show(
        {"ok": not wrong, "problems": wrong, "findings": [finding._asdict() for finding in findings]},
        table(("", "what", ""), ((finding.result, finding.subject, finding.message) for finding in findings)),
    )
    return 1 if wrong else 0


def _configuration(session: Session) -> list[Finding]:
    from ..config import did_you_mean, tls_warnings
    from ..plugins import unknown_picks

    findings = [Finding("configuration", _OK, str(session.config.path))]
    findings += [Finding("configuration", _NOTE, said) for said in tls_warnings(session.config.kafka)]
    installed = session.installed()
    for name in session.config.processors:
        if name not in installed:
            advice = did_you_mean(name, installed, "install it, or take the table out")
            findings.append(Finding(f"[processors.{name}]", _NOTE, f"no such processor is installed; {advice}"))
    plugins = {one.name for one in session.discovered.plugins}
    for name in session.config.plugins:
        if name not in plugins:
            advice = did_you_mean(name, plugins, "install it, or take the table out")
            findings.append(Finding(f"[plugins.{name}]", _NOTE, f"no such plugin is installed; {advice}"))
    findings += [
        Finding("configuration", _NOTE, said) for said in unknown_picks(session.config, session.discovered.plugins)
    ]
    return findings + _of_decoders(session)


def _unread(session: Session, rows: list[dict[str, Any]]) -> list[Finding]:
    """Find tables of topics that nobody reads, and so a slip perhaps; what a broken processor reads, nobody knows."""
    from ..config import did_you_mean

    read = {topic for row in rows for topic in _topics(row["topics"])}
    if any(row["status"] == "broken" for row in rows):
        return []
    return [
        Finding(
            f"[topics.{topic}]",
            _NOTE,
            f"no processor that may run reads it; {did_you_mean(topic, read, 'take the table out, or install one')}",
        )
        for topic in session.config.topics
        if topic not in read
    ]


def _of_decoders(session: Session) -> list[Finding]:
    from ..decode import check_topic

    findings = []
    for topic in session.config.topics:
        try:
            check_topic(session.config, topic)
        except ConfigError as error:
            findings.append(Finding(f"[topics.{topic}]", _PROBLEM, str(error)))
    return findings


def _of_processor(row: dict[str, Any]) -> Finding:
    ready = f"version {row['version']}, reads {', '.join(row['topics'])}"
    return _of_package(f"processor {row['name']}", row, row["distribution_version"], ready)


def _of_plugin(row: dict[str, Any]) -> Finding:
    return _of_package(f"plugin {row['name']}", row, row["version"], ", ".join(row.get("hooks", ())))


def _of_package(subject: str, row: dict[str, Any], version: str, ready: str) -> Finding:
    result = {"ready": _OK, "blocked": _NOTE, "broken": _PROBLEM}[row["status"]]
    if row["reason"] is None:
        return Finding(subject, result, ready)
    where = f"{subject} ({row['distribution']} {version})"
    message = row["reason"] if row["reason"].startswith(where) else f"{where}: {row['reason']}"
    return Finding(subject, result, f"blocked: {message}" if row["status"] == "blocked" else message)


def _topics(subscriptions: list[str]) -> list[str]:
    return list(dict.fromkeys(one.partition("/")[0] for one in subscriptions))


def _source(session: Session) -> tuple[Source | None, list[Finding]]:
    from ..config import masked_url

    subject = f"source {masked_url(session.config.source)}"
    try:
        session.source.cluster_id()
    except (PluginError, SourceUnavailable) as error:
        return None, [Finding(subject, _PROBLEM, str(error))]
    return session.source, [Finding(subject, _OK)]


def _of_topics(source: Source, topics: dict[str, list[str]]) -> list[Finding]:
    findings = []
    for topic in sorted({topic for listed in topics.values() for topic in listed}):
        readers = ", ".join(name for name, listed in topics.items() if topic in listed)
        try:
            count = len(source.partitions(topic))
        except AxeError as error:
            findings.append(Finding(f"topic {topic}", _PROBLEM, f"{error} (read by {readers})"))
        else:
            findings.append(Finding(f"topic {topic}", _OK, f"{count} partition{'s' if count != 1 else ''}"))
    return findings


def _of_letter_topics(config: Config, source: Source, topics: dict[str, list[str]]) -> list[Finding]:
    """Look whether each processor's dead letters can go to the topic that its settings name."""
    from ..relay import open_topic

    findings = []
    for name, listed in topics.items():
        topic = config.processor(name).dead_letters.topic
        try:
            opened = open_topic(name, topic, listed, source)
            if topic is None or opened is None:
                continue
            opened.close()
            source.partitions(topic)
        except AxeError as error:
            findings.append(Finding(f"dead letters of {name}", _PROBLEM, str(error)))
        else:
            findings.append(Finding(f"dead letters of {name}", _OK, f"go to the topic {topic}"))
    return findings


def _known(session: Session) -> list[str]:
    """List the processors whose databases are to be looked at."""
    from ..config import NAME

    try:
        return session.known()
    except ConfigError:
        raise
    except AxeError:
        # Nobody can tell which there are: the finding about each that is installed says why.
        return sorted(filter(NAME.match, session.installed()))


def _of_store(session: Session, name: str, version: int | None, source: Source | None) -> list[Finding]:
    from ..discovery import FoundStatus

    subject = f"database of {name}"
    try:
        with session.store(name) as store:
            if store is None:
                found = session.installed().get(name)
                may_run = found is not None and found.status is FoundStatus.FOUND
                return [Finding(subject, _OK, "not there yet: made at the first start")] if may_run else []
            findings = [Finding(subject, _OK, store.location)]
            control = store.control()
            if control.status == "failed":
                reason = control.last_error or "it said nothing"
                said = f"{name} failed: {reason}; mend the cause, then `axe resume {name}`"
                findings.append(Finding(f"state of {name}", _PROBLEM, said))
            elif control.paused:
                findings.append(Finding(f"state of {name}", _NOTE, f"paused; `axe resume {name}` lets it go on"))
            settings = session.config.processor(name)
            if version is not None:
                findings += _of_retention(store, settings.dead_letters)
            return findings + _of_positions(store, control, version, source, settings.on_misfit)
    except AxeError as error:
        return [Finding(subject, _PROBLEM, str(error))]


def _of_retention(store: Store, settings: LettersConfig) -> list[Finding]:
    """Foretell which dead letters a worker deletes, and what a topic misses by that."""
    from ..retention import too_old_before

    if settings.days is None and settings.rows is None:
        return []
    name = store.processor
    going = store.count_going_letters(until=too_old_before(settings), rows=settings.rows)
    number = going.too_old + going.too_many
    if not number:
        return []
    by = [f"{going.too_old} by days = {settings.days:g}"] if going.too_old else []
    by += [f"{going.too_many} by rows = {settings.rows}"] if going.too_many else []
    said = f"when {name} runs next, {number} of its dead letters are deleted: {', '.join(by)}"
    if settings.topic is not None and going.unpublished:
        said += f"; the topic {settings.topic} has not got {going.unpublished} of these yet"
        said += ", and never gets what is deleted before it is sent"
    return [Finding(f"dead letters of {name}", _NOTE, f"{said}; `axe rejections export {name} FILE` keeps them")]


def _of_positions(
    store: Store, control: Control, version: int | None, source: Source | None, settings: MisfitConfig
) -> list[Finding]:
    """Hold the stored positions against the log, as a worker does at its start."""
    from ..fit import Log, misfits, policy

    subject, stored = f"positions of {store.processor}", store.positions()
    if not stored:
        return []
    log, wrong = Log(None, {}, {}), []
    for topic in sorted({at.topic for at in stored}):
        if source is None:
            break
        try:
            asked = Log.of(source, [topic])
        except AxeError as error:
            wrong.append(f"{topic} cannot be asked: {error}")
        else:
            log = Log(asked.cluster_id, log.topic_ids | asked.topic_ids, log.bounds | asked.bounds)
            gone = sorted(str(at) for at in stored if at.topic == topic and at not in asked.bounds)
            wrong += [f"{at} is no longer there" for at in gone]
    notes = []
    for misfit in misfits(store.processor, version, control, stored, log):
        if (decided := policy(misfit.kind, settings)) == "halt":
            wrong.append(str(misfit.error))
        else:
            notes.append(Finding(subject, _NOTE, f"{misfit.what}; on_misfit says {decided}"))
    if not (wrong or notes) and source is not None:
        return [Finding(subject, _OK, f"{len(stored)} within the log")]
    return [*(Finding(subject, _PROBLEM, said) for said in wrong), *notes]
