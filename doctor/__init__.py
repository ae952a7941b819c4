"""pegasus-doctor: root causes and recovery for Pegasus workflows on HTCondor."""

__version__ = "0.1.0"
