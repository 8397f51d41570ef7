"""The whole system as local processes of this project: own ports, own data under `.stack/`, no Docker and no system service."""
