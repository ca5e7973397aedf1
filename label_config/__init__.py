"""What a project's labeling config asks for, and Label Studio's own wire formats. No torch, no HTTP."""
