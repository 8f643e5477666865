from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PackedResponse(_message.Message):
    __slots__ = ("ids", "scores", "numbers", "texts", "index", "server_version")
    class Numbers(_message.Message):
        __slots__ = ("name", "values")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUES_FIELD_NUMBER: _ClassVar[int]
        name: str
        values: bytes
        def __init__(self, name: _Optional[str] = ..., values: _Optional[bytes] = ...) -> None: ...
    class Texts(_message.Message):
        __slots__ = ("name", "values")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUES_FIELD_NUMBER: _ClassVar[int]
        name: str
        values: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, name: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ...) -> None: ...
    IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    scores: bytes
    numbers: _containers.RepeatedCompositeFieldContainer[PackedResponse.Numbers]
    texts: _containers.RepeatedCompositeFieldContainer[PackedResponse.Texts]
    index: bytes
    server_version: str
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., scores: _Optional[bytes] = ..., numbers: _Optional[_Iterable[_Union[PackedResponse.Numbers, _Mapping]]] = ..., texts: _Optional[_Iterable[_Union[PackedResponse.Texts, _Mapping]]] = ..., index: _Optional[bytes] = ..., server_version: _Optional[str] = ...) -> None: ...
