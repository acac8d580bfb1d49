"""The native wire, `tailrace://`: the only one that resumes, and that says everything that Tailrace can say."""
