"""The student: QANet."""
