"""E-Net in its deployable form.

Differences from the plain one: a styled convolution scales its input and output instead of building a
weight per sample; halving is 2x2 averaging; bilinear doubling and the convolution after it change
places (see `DoublingStyledConv`); only pixels that the final crop keeps are computed; noise is none, or
constant.
"""
