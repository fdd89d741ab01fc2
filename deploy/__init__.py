"""What brings the project up elsewhere: container images, and the tool that pins them."""
