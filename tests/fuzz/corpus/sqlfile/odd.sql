-- azoth: projection p
--AZOTH : on a,b
[x "y' -- 
