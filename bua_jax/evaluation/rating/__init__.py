"""Human evaluation (Appendices Q and R): texts about people, blinded for judges and scored."""
