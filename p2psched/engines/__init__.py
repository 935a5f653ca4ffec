"""Ledgers that others have written, behind the port `Ledger`. Nothing here is loaded unless it is
asked for."""
