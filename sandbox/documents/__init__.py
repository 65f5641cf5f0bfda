"""One module per document: layout rules from lines of text to the vendor's answer."""
