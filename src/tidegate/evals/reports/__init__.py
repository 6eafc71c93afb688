"""A verdict as files that other programs and people open: HTML, JUnit XML, Markdown, GitHub's annotations."""
