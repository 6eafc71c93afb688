"""Records of calls: spool → recorder → lake → queries."""
