"""What a `pushMethod` says, in KubeEdge's words, and what is refused with a sentence."""

import pytest

from mappers.pushmethod import HttpPlace, MqttPlace, MysqlPlace, RedisPlace, Target, read_push_method

INFLUX = {
    "influxdb2ClientConfig": {"url": "http://db:8086/", "org": "my org", "bucket": "b/1"},
    "influxdb2DataConfig": {"measurement": "room", "fieldKey": "t", "tag": {"site": "a", "floor": "2"}},
}


@pytest.mark.parametrize(
    ("method", "target"),
    [
        (
            {"http": {"hostName": "http://h", "port": 8080, "requestPath": "/push", "timeout": 1500}},
            Target(HttpPlace("form", "http://h:8080/push", 1.5)),
        ),
        ({"http": {"hostName": "h"}}, Target(HttpPlace("form", "http://h/", 10.0))),
        (
            {"mqtt": {"address": "tcp://h:1883", "topic": "data/x", "qos": 1, "retained": True}},
            Target(MqttPlace("mqtt://h:1883"), topic="data/x", qos=1, retained=True),
        ),
        ({"mqtt": {"address": "h:1883", "topic": "t"}}, Target(MqttPlace("mqtt://h:1883"), topic="t")),
        ({"mqtt": {"address": "ssl://h", "topic": "t"}}, Target(MqttPlace("mqtts://h"), topic="t")),
        ({"otel": {"endpointURL": "http://c:4318"}}, Target(HttpPlace("otlp", "http://c:4318/v1/metrics"))),
        ({"otel": {"endpointURL": "https://c/x/v1/metrics"}}, Target(HttpPlace("otlp", "https://c/x/v1/metrics"))),
        (
            {"dbMethod": {"influxdb2": INFLUX}},
            Target(
                HttpPlace("influx", "http://db:8086/api/v2/write?org=my%20org&bucket=b%2F1&precision=ms"),
                measurement="room",
                field="t",
                tags=(("floor", "2"), ("site", "a")),
            ),
        ),
        (
            {"dbMethod": {"redis": {"redisClientConfig": {"addr": "h:6379", "db": 2, "poolsize": 9}}}},
            Target(RedisPlace("h:6379", 2)),
        ),
        (
            {"dbMethod": {"mysql": {"mysqlClientConfig": {"addr": "h:3306", "database": "d", "userName": "u"}}}},
            Target(MysqlPlace("h:3306", "d", "u")),
        ),
    ],
)
def test_a_method_is_read_in_kubeedges_words(method: dict[str, object], target: Target) -> None:
    assert read_push_method(method) == ((target,), ())


def test_several_methods_are_served_all_and_anomaly_detection_is_the_drivers() -> None:
    read = read_push_method(
        {"http": {"hostName": "h"}, "dbMethod": {"influxdb2": INFLUX}, "anomalyDetection": {"any": ["thing"]}}
    )
    assert [type(each.place) for each in read.targets] == [HttpPlace, HttpPlace]
    assert read.problems == ()
    assert read_push_method({}) == ((), ())
    assert read_push_method({"http": None, "dbMethod": None}) == ((), ())


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ({"http": {}}, "pushMethod.http: hostName is missing"),
        ({"http": "h"}, "pushMethod.http: must be an object"),
        ({"http": {"hostName": "h", "port": 70000}}, "port must be 0 to 65535"),
        ({"http": {"hostName": "h", "port": "80"}}, "port must be a whole number"),
        ({"http": {"hostName": "h", "port": True}}, "port must be a whole number"),
        ({"http": {"hostName": "ftp://h"}}, "is not http://HOST"),
        ({"http": {"hostName": "http://me:secret@h"}}, "credentials do not belong into a Device"),
        ({"http": {"hostName": "h", "requestPath": "a b\n"}}, "is not http://HOST"),
        ({"mqtt": {"address": "h"}}, "address and topic are needed"),
        ({"mqtt": {"address": "h", "topic": "a/#"}}, "no wildcards"),
        ({"mqtt": {"address": "h", "topic": "$hw/events/device/a/b/twin/update"}}, "$hw/ is the edge's"),
        ({"mqtt": {"address": "h", "topic": "t", "qos": 3}}, "qos must be 0, 1 or 2"),
        ({"mqtt": {"address": "ws://h", "topic": "t"}}, "is not tcp://HOST:PORT"),
        ({"mqtt": {"address": "tcp://me:secret@h", "topic": "t"}}, "credentials do not belong into a Device"),
        ({"dbMethod": {"redis": {"redisClientConfig": {"addr": "me:secret@h"}}}}, "credentials do not belong"),
        ({"otel": {"endpointURL": ""}}, "is not http://HOST"),
        ({"dbMethod": {"influxdb2": {"influxdb2ClientConfig": {"url": "http://h"}}}}, "bucket is missing"),
        ({"dbMethod": {"influxdb2": {}}}, "bucket is missing"),
        ({"dbMethod": {"influxdb2": {"influxdb2ClientConfig": [1]}}}, "influxdb2ClientConfig must be an object"),
        ({"dbMethod": {"redis": {}}}, "pushMethod.redis: redisClientConfig.addr is missing"),
        ({"dbMethod": {"mysql": {"mysqlClientConfig": {"addr": "h"}}}}, "needs addr, database and userName"),
        ({"dbMethod": {"TDEngine": {"TDEngineClientConfig": {"addr": "h"}}}}, "TDEngine: is not supported here"),
        ({"carrierPigeon": {"loft": 1}}, "carrierPigeon: is not known"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_pushed(method: dict[str, object], says: str) -> None:
    read = read_push_method(method)
    assert read.targets == ()
    assert len(read.problems) == 1
    assert says in read.problems[0]
    assert "secret" not in read.problems[0]
