"""stub"""


class OpcUa: ...
