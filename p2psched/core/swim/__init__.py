"""Who is there and what they say, by gossip: SWIM (Das, Gupta, Motivala 2002) with suspicion and
local health as in Lifeguard (Dadgar, Phillips, Currey 2018). Advice only: see ADR 0049.
"""
