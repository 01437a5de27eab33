"""
Mappers: the programs that stand between real devices and the device twin.

A mapper is a process of its own that speaks MQTT and nothing else with the edge. It imports from
devicetwin only the message formats, so it has exactly what a mapper in another language would have.

    driver.py                   what a driver is: all that a new driver imports
    words.py, values.py         its words, and its values as text (pure)
    registry.py                 drivers by name
    polling.py, dialogue.py     when to read, write and report; what to say over MQTT (pure)
    membership.py               what the edge says of a device, checked (pure)
    attendant.py, mqtt.py       one device's task; the one MQTT connection
    pushmethod.py, points.py    where samples go besides the twin, and how they are written there (pure)
    telemetry.py, stores.py     the tasks that bring them; redisstore.py, mysqlstore.py: databases with a client library
    sink.py                     the mailbox of a device that speaks for itself (pure)
    runtime.py                  the process: learns its devices, starts and stops their tasks
    settings.py, faults.py      reading configData; what is wrong with single properties
    payloads.py, credentials.py what devices say in texts, and templates for what they hear; secrets and certificates
    simulated.py, thermostat.py, host.py    the two drivers that need no device
    modbus.py, modbusline.py, batches.py, registers.py      Modbus: the driver, a line, requests, what registers mean
    http.py, webclient.py       HTTP: the driver, requests over one connection
    mqttdevice.py, availability.py          devices with MQTT of their own: the driver, whether they are there
    sysfs.py, onewire.py        pins and thermometers: the driver, a thermometer's text
    opcua.py, opcendpoint.py, variants.py   OPC UA: the driver, where the server is, what nodes hold
"""
