"""What a person has: folders of pictures, tables, arrays; each read to a :class:`~sandglass.data.sources.raw.Raw`."""
