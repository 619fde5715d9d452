//! The agent, the CLI and the exporter.
