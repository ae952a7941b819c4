"""Small real programs in the place of Pegasus' and HTCondor's: seconds instead of minutes for a repair, kills included."""
