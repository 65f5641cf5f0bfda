"""A local server that speaks Baidu OCR's HTTP protocol and really reads the picture."""
