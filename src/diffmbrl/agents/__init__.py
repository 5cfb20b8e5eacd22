"""What the papers' agents share."""
