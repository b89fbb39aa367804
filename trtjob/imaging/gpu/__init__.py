"""JPEG files become the network's input on the GPU: nvJPEG decodes them, a kernel of ours resizes them."""
