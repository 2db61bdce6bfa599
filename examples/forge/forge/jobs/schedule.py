"""When an entry of the schedule is due. Pure: the same answer on every node, from the clock alone, in UTC."""

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MINUTE = datetime.timedelta(minutes=1)
# 29 February comes after eight years at the latest (1896 to 1904, 2096 to 2104).
LONGEST_DAYS = 8 * 366


class ScheduleError(ValueError):
    """One line that names the entry, the value and the mend."""


@dataclass(frozen=True)
class Entry:
    name: str
    task: str
    queue: str
    catch_up: bool
    # The last due time that is not after the given one.
    last_due: Callable[[datetime.datetime], datetime.datetime]


def read(path: str) -> list[Entry]:
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScheduleError(f"SCHEDULES_FILE {path!r} cannot be read: {error}") from None
    return [entry(each) for each in raw]


def entry(raw: dict) -> Entry:
    if raw.get("cron"):
        try:
            last_due = cron(raw["cron"])
        except ValueError as error:
            raise ScheduleError(f"schedule {raw['name']}: cron is {raw['cron']!r}: {error}") from None
    else:
        last_due = every(raw["every_seconds"])
    return Entry(raw["name"], raw["task"], raw["queue"], raw["missed"] == "catch_up", last_due)


def every(seconds: int) -> Callable[[datetime.datetime], datetime.datetime]:
    """Due at multiples of the period since 1970, so that nobody has to remember when it began."""
    period = datetime.timedelta(seconds=seconds)
    return lambda now: now - (now - EPOCH) % period


def cron(text: str) -> Callable[[datetime.datetime], datetime.datetime]:
    """Five fields as in cron(5): lists, ranges and steps of numbers; both days given means either."""
    fields = text.split()
    minutes, hours = numbers(fields[0], 0, 59), numbers(fields[1], 0, 23)
    days, months = numbers(fields[2], 1, 31), numbers(fields[3], 1, 12)
    weekdays = {number % 7 for number in numbers(fields[4], 0, 7)}  # 0 and 7 are Sunday
    either = not fields[2].startswith("*") and not fields[4].startswith("*")

    def is_day(day: datetime.date) -> bool:
        by_day, by_weekday = day.day in days, day.isoweekday() % 7 in weekdays
        return day.month in months and (by_day or by_weekday if either else by_day and by_weekday)

    times = [
        datetime.time(hour, minute, tzinfo=datetime.UTC)
        for hour in sorted(hours)
        for minute in sorted(minutes)
    ]

    def last_due(now: datetime.datetime) -> datetime.datetime:
        now = now.astimezone(datetime.UTC)
        for back in range(LONGEST_DAYS):
            day = now.date() - datetime.timedelta(days=back)
            if is_day(day):
                due = [datetime.datetime.combine(day, time) for time in times]
                if due[0] <= now:
                    return max(each for each in due if each <= now)
        raise ValueError("no day fits")

    last_due(
        datetime.datetime.now(datetime.UTC)
    )  # a date that never comes, 30 February, is told at the start
    return last_due


def numbers(field: str, least: int, most: int) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = (f"{least}-{most}" if span == "*" else span).partition("-")
        if (
            not first.isdigit()
            or not (last or first).isdigit()
            or (step and not (step.isdigit() and int(step)))
        ):
            raise ValueError(f"{part!r} is no number, range or step")
        end = int(last or (most if step else first))
        if not least <= int(first) <= end <= most:
            raise ValueError(f"{part!r} is not within {least} to {most}")
        found.update(range(int(first), end + 1, int(step or 1)))
    return found
