"""The learning loop with a simulated annotator: `python -m bench.loop`.

__main__.py        the command
plan.py            its options, the seeds it may use, the paths in its folder
simulation.py      all rounds: annotate, collect, fine-tune, gate, promote
progress_file.py   completed phases, so that a killed simulation can be continued
commands.py        `osprey` commands as child processes
team.py            the team's pictures and the terms that it uses
team_project.py    the team's project in Label Studio
annotating.py      one round of annotation
annotator.py       what the annotator corrects in one region
shuffled.py        the control: corrections of other regions
tally.py           corrected fields per 100 regions
outcome.py         figures of all rounds, goals, tables
"""
