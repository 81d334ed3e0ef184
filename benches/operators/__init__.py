"""Our operator and the stock one at sizes that no real pods allow: real objects of a real API server, fake kubelets."""
