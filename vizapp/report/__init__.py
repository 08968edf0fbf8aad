"""Reports: answers with everything that explains them, as one HTML file that needs no network and no server."""
