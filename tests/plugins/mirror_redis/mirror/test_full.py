"""A mirror whose Redis becomes full in the midst of a batch: what was refused waits, and comes."""

from __future__ import annotations


async def test_m3_a_mirror_brings_the_rest_when_there_is_room(redis, service, until, full_at):
    async with service(redis.url, grace_s=0.2, audit_s=3_600) as one:
        full_at(1)
        done = await one.publish_all({f"visor{i}": "here" for i in range(700)})
        texts = [p.text for each in done for r in each.reports for p in r.replicas]
        assert len(texts) == 700
        assert sum(text.startswith("queued") for text in texts) == 700 - 512
        await one.settled()
        assert one.mirroring.writer.counters["failures"] == 1
        assert redis.send("ZCARD", "dht:targets") == b":700\r\n"
