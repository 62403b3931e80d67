"""Operations that TensorFlow lacks or that run faster here: fused, grouped, keyed by update."""
