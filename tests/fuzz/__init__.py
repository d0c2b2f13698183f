"""Input of strangers, changed at random: each comes to a result or to one line, soon and in little memory."""
