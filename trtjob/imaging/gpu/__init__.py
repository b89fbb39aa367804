"""JPEG files become the network's input on the GPU: nvImageCodec decodes them, a kernel of ours resizes them."""
