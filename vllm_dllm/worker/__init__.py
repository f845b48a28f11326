"""The side that owns weights and caches: it computes passes and keeps no decoding state."""
