"""Tables, figures and the HTML page, made from what the stages wrote."""
