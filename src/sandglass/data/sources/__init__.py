"""Readers of folders of pictures, tables and arrays, which return a :class:`~sandglass.data.sources.raw.Raw`."""
