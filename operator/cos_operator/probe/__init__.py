"""The prober: what runs in a probe's Job. It makes bounded load by the engines' own drivers and measures it."""
