"""Tables, figures and the HTML page, built from the files that the stages wrote."""
