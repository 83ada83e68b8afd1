"""The plugins that every installation has."""
