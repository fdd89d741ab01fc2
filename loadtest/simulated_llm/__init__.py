"""A simulated LLM: OpenAI's chat API with realistic timing, and no model behind it.

From a shell:  python -m loadtest.simulated_llm --name cheap-sim --port 9101
From Python:   with simulated_llm("cheap-sim") as llm: client = OpenAI(base_url=llm.base_url, api_key="x")

It says in every answer that it is simulated. `faults.py` lists the misbehaviour it can be told to show.
"""

from loadtest.simulated_llm.process import SeenRequest, SimulatedLLM, simulated_llm

__all__ = ["SeenRequest", "SimulatedLLM", "simulated_llm"]
